"""The commands of the runtime, one file each: `command` takes a parser, adds its arguments and gives what runs."""

from stapes.commands import classify, doctor, info, verify
from stapes.commands.arguments import Command, Run

COMMANDS: dict[str, Command] = {"classify": classify.command, "info": info.command, "verify": verify.command, "doctor": doctor.command}

__all__ = ["COMMANDS", "Command", "Run"]
