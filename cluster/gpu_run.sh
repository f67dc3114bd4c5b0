#!/usr/bin/env bash
# On a GPU machine without a network, from an unpacked kit (cluster/gpu_kit.py): the tests that need a GPU, the
# benchmarks, and CamVid by PixelPick's protocol where the kit holds data and weights. Logs go to $OUT.
#
#   bash gpu-kit/project/cluster/gpu_run.sh [tests] [bench] [protocol]     (nothing: all three)
set -euo pipefail
project=$(cd "$(dirname "$0")/.." && pwd)
kit=$(dirname "$project")
out=${OUT:-$kit/out}
mkdir -p "$out"
cd "$project"
if [[ ! -f .venv/.ready ]]; then
    base=$(python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    python3 -m venv --without-pip .venv
    site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
    if compgen -G "$kit/wheels/*.whl" >/dev/null; then
        python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$kit"/wheels/*.whl
    fi
    # What the machine has comes after the kit's: a path file, since its python3 may be of an environment itself.
    printf '%s\n%s\n' "$project" "$base" >"$site/kit.pth"
    printf '#!/bin/sh\nexec "%s/.venv/bin/python" -m pytest "$@"\n' "$project" >.venv/bin/pytest
    printf '#!%s/.venv/bin/python\nfrom madbal_ray.cli import main\nmain()\n' "$project" >.venv/bin/madbal
    chmod +x .venv/bin/pytest .venv/bin/madbal
    touch .venv/.ready
fi
failed=0 # a step that fails does not keep the next one from its turn
for part in "${@:-tests bench protocol}"; do
    for step in $part; do
        case $step in
        tests) # their files alone: others may import what a GPU machine lacks
            mapfile -t files < <(grep -rl 'mark\.gpu' tests --include='*.py')
            .venv/bin/pytest -m gpu -rs --continue-on-collection-errors "${files[@]}" 2>&1 | tee "$out/tests.log" || failed=1
            ;;
        bench)
            only=() # without Ray those that need none
            .venv/bin/python -c 'import ray' 2>/dev/null || only=(--only uncertainty fused_kernel point_loss)
            .venv/bin/python -m benchmarks --device cuda "${only[@]}" 2>&1 | tee "$out/bench.log" || failed=1
            ;;
        protocol)
            weights=("$kit"/weights/*)
            if [[ ! -f ${weights[0]} || ! -d $kit/data ]]; then
                echo "no protocol: the kit holds no data and weights" >&2
                exit 1
            fi
            # margin chooses pixels without superpixels; SLIC does without OpenCV's contrib modules
            .venv/bin/madbal run experiments/pixelpick-camvid.yaml --engine local --run-dir "$out/pixelpick-camvid" \
                --set superpixels.method=slic --set data.root="$kit/data" --set model.weights="${weights[0]}" \
                2>&1 | tee "$out/protocol.log" || failed=1
            ;;
        *)
            echo "unknown step $step: tests, bench or protocol" >&2
            exit 2
            ;;
        esac
    done
done
exit "$failed"
