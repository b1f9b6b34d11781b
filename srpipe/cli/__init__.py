"""The command line: arguments, progress on screen, exit codes. One file a command."""
