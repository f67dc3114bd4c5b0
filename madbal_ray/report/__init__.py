"""What people look at: curves, tables, figures. No torch, no Ray, no I/O but its outputs."""
