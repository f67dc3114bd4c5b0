"""Every option, declared once, and reading them from files."""
