"""What each command of the command line does; each module has ``main(command, words)``."""
