"""stapes doctor."""

import argparse
import json
from dataclasses import asdict

from stapes.commands.arguments import Run


def command(parser: argparse.ArgumentParser) -> Run:
    """Say what this host can really run."""
    parser.add_argument("--json", action="store_true", help="one JSON object")

    def run(options: argparse.Namespace) -> int:
        from stapes import doctor  # here: what it looks with takes as long to load as NumPy, and every command would wait for it

        findings = doctor.examine()
        healthy = all(finding.state != "wrong" for finding in findings)
        if options.json:
            print(json.dumps({"ok": healthy, "findings": [asdict(finding) for finding in findings]}, ensure_ascii=False, indent=2))
        else:
            width = max(len(finding.name) for finding in findings)
            for finding in findings:
                print(f"{finding.state:<5}  {finding.name:<{width}}  {finding.value}")
                if finding.remedy:
                    print(f"{'':<{width + 9}}{finding.remedy}")
        return 0 if healthy else 1

    return run
