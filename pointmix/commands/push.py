"""Upload a finished run to the Hugging Face hub: weights, settings, results, pictures and a model card.

pointmix push RUN OWNER/NAME --license apache-2.0
pointmix push RUN OWNER/NAME --private --revision try --commit_message "Longer training"
pointmix push RUN OWNER/NAME --dry_run DIR        # only write these files to DIR, to look at them

Others then load it with pointmix.from_pretrained("OWNER/NAME") or name it in commands: --run hf-hub:OWNER/NAME.
Local paths are replaced by their last part in all files. Pictures show samples of the test data and names of their
files; --no_pictures leaves them out. The token is that of `hf auth login` or of the environment variable HF_TOKEN.
"""

from __future__ import annotations

from argparse import Namespace, RawDescriptionHelpFormatter

from pointmix.commands.typed import described
from pointmix.utils.cli import exit_code

LICENSE = "license of the weights (default: none), such as apache-2.0; names: hf.co/docs/hub/repositories-licenses"


def main(argv: list[str], prog: str = "pointmix push") -> int:
    return exit_code(lambda: push(parse(argv, prog)))


def parse(argv: list[str], prog: str) -> Namespace:
    from pointmix.engine.command import IMPORT, TaskParser, import_modules

    about = described(__doc__, "pointmix push", prog)
    parser = TaskParser(prog=prog, description=about, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="folder of a finished run")
    parser.add_argument("repo_id", metavar="OWNER/NAME", help="repository, which is made if there is none")
    parser.add_argument("--license", metavar="NAME", help=LICENSE)
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="NAME", help="branch, which is made if there is none (default: main)")
    parser.add_argument("--commit_message", metavar="TEXT", help="of the commit")
    parser.add_argument("--no_pictures", action="store_true", help="leave out pictures")
    parser.add_argument("--dry_run", metavar="DIR", help="upload nothing, write the files to this folder")
    parser.add_argument("--import", metavar="MODULE", help=IMPORT)
    return parser.parse_args(import_modules(argv))


def push(args: Namespace) -> None:
    from pointmix.engine.hub import push_to_hub, save_pretrained

    about = {"license": args.license, "pictures": not args.no_pictures}
    upload = {"private": args.private, "revision": args.revision, "commit_message": args.commit_message}
    if args.dry_run is not None:
        if unused := [f"--{name}" for name, value in upload.items() if value]:
            raise ValueError(f"{', '.join(unused)}: of an upload, and --dry_run uploads nothing")
        files = save_pretrained(args.run, args.dry_run, repo_id=args.repo_id, **about)
        print(f"{', '.join(file.name for file in files)} in {args.dry_run}; nothing was uploaded")
        return
    print("uploaded:", push_to_hub(args.run, args.repo_id, **upload, **about))
