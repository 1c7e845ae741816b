"""A hub id as a model -> its files on this disk: the repository's own ONNX, else an artifact that is exported once and kept.

What comes from the hub lies where huggingface_hub keeps it. In cache.folder() lie

    exports/<owner>--<name>/<commit>/<precision>.onnx      what was exported here
    exports/<owner>--<name>/refs/<revision>                the commit that a branch or tag had, for when the hub cannot be asked
    graphs/models--<owner>--<name>/snapshots/<commit>/     graphs whose weights ONNX Runtime would not follow into the hub's cache

huggingface_hub reads HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and HF_TOKEN.
"""

import codecs
import contextlib
import os
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stapes import cache, repository
from stapes.errors import InvalidOption, MissingExtra, ModelError, ModelNotFound
from stapes.repository import ARTIFACT, CONFIG, EXTRACTORS

PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
ID = re.compile(rf"(?!.*(?:--|\.\.)){PART}/{PART}")
"""owner/name, as the hub allows names; it forbids `--`, so that `owner--name` is one word for both."""

COMMIT = re.compile(r"[0-9a-f]{40}")
WORD = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
"""A precision, which becomes a file's name."""

BRANCH = "main"

PRECISIONS = ("fp32", "fp16", "int8", "int8-portable", "int8-static")
"""What may stand as the last word before `.stapes.onnx`; a name without one is plain."""

EXPORTER = ("stapes_export", "torch", "transformers", "onnx")
"""What must be importable for an export."""

TAIL = 4096
"""Characters of an export's output that are kept to find its last line in."""


def is_id(name: str) -> bool:
    """Whether `name` is to be asked of a hub: owner/name, and neither a path that is there nor one of an ONNX file."""
    return bool(ID.fullmatch(name)) and not name.lower().endswith((".onnx", ".git")) and not Path(name).exists()


def fetch(repo: str, revision: str | None = None, token: str | bool | None = None, precision: str | None = None) -> Path:
    """The model of the repository `repo` at `revision` (a branch, tag or commit), as a path that repository.find takes with `precision`.

    All of it from one commit: a file *.stapes.onnx (`precision` is the last word before that ending), else the one graph that
    repository.choose picks and its configs, else an artifact exported into the cache, where the exporter is installed. Where the hub
    cannot be reached, what is already on this disk serves. `token`: for private and gated repositories; None or True leave it to HF_TOKEN,
    False sends none.
    Raises ModelNotFound, ModelError, MissingExtra or InvalidOption.
    """
    if not ID.fullmatch(repo):
        raise ModelError(f"{repo!r} is no hub id; it should look like owner/name")
    if precision is not None and not WORD.fullmatch(precision):
        raise InvalidOption(f"precision is a word such as fp32 or int8-portable, not {precision!r}")
    asked = revision or BRANCH
    if COMMIT.fullmatch(asked) and os.path.isfile(made := _made(repo, asked, precision)):
        return made
    client = _client()
    try:
        listed = _listing(client, repo, asked, token)
    except Exception as error:  # the client also lets the errors of its HTTP library through, which share no base with its own
        found = None if _final(error) else _from_disk(client, repo, asked, token, precision)
        if found is None:
            raise _told(error, repo, asked) from error
        return found
    graph = _graph(listed.names, precision, repo)
    if graph is None:
        if CONFIG not in listed.names:
            raise ModelError(f"{repo} has neither an ONNX graph nor a {CONFIG}, so it is no audio classifier")
        _remember(repo, asked, listed.commit)
        return _exported(repo, listed.commit, token, precision)
    wanted = _with_companions(graph, listed.names)
    try:
        folder = _download(client, repo, asked, token, listed.commit, wanted)
    except Exception as error:  # as above
        raise _told(error, repo, asked) from error
    if folder.name != listed.commit:  # the branch moved since the list was made
        return fetch(repo, folder.name, token, precision)
    return _path(repo, folder, wanted)


@dataclass(frozen=True)
class _Listing:
    """What a repository holds at one commit."""

    commit: str
    names: tuple[str, ...]


def _client() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.constants  # it loads its parts late, this one not by itself
    except ImportError as error:
        raise MissingExtra("a model from a hub needs huggingface_hub: pip install 'stapes[hub]'") from error
    return huggingface_hub


def _listing(client: Any, repo: str, asked: str, token: str | bool | None) -> _Listing:
    timeout = client.constants.HF_HUB_ETAG_TIMEOUT  # the client's own patience for a question
    info = client.HfApi().model_info(repo, revision=asked, token=token, timeout=timeout)
    commit = asked if COMMIT.fullmatch(asked) else info.sha
    if not commit:
        raise ValueError("the answer names no commit")
    return _Listing(commit, tuple(sibling.rfilename for sibling in info.siblings or ()))


def _download(client: Any, repo: str, asked: str, token: str | bool | None, commit: str, names: list[str]) -> Path:
    """The client's folder of `commit` with all of `names` in it; that of another commit, unfinished, where `asked` has become another."""

    def get(name: str, at: str) -> Path:
        file = Path(client.hf_hub_download(repo, name, revision=at, token=token))
        return file.parents[name.count("/")]

    # the first by the branch's own name, so that the client notes its commit and finds it again offline
    folder = get(names[0], commit if _commit(client, repo, asked) == commit else asked)
    if folder.name == commit:
        for name in names[1:]:
            get(name, commit)
    return folder


def _from_disk(client: Any, repo: str, asked: str, token: str | bool | None, precision: str | None) -> Path | None:
    """What is on this disk of the commit that `asked` is, or was when the hub was last asked; None where nothing of it serves."""
    for commit in dict.fromkeys((_commit(client, repo, asked), _remembered(repo, asked))):
        if commit is None:
            continue
        folder = _in_client_cache(client, repo) / "snapshots" / commit
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        graph = _graph(names, precision, f"{repo} in the local cache")
        if graph is not None:
            return _path(repo, folder, _with_companions(graph, names))
        weights = any(name.endswith((".safetensors", ".bin")) for name in names)
        if os.path.isfile(_made(repo, commit, precision)) or (CONFIG in names and weights and not _absent()):
            return _exported(repo, commit, token, precision)
    return None


def _graph(names: Collection[str], precision: str | None, where: str) -> str | None:
    """The graph to use among the files of a repository; None where it has no ONNX. Raises ModelError where the choice is open."""
    ours = {name: _last_word(name) for name in sorted(names) if name.endswith(ARTIFACT)}
    if len(ours) == 1:
        return next(iter(ours))  # whether it is of that precision stands in the file, not in its name
    if ours:
        fitting = [name for name, word in ours.items() if word == precision]
        if not fitting and precision == "fp32":
            fitting = [name for name, word in ours.items() if word is None]
        if len(fitting) == 1:
            return fitting[0]
        if precision is None or fitting:
            raise ModelError(f"{where} has several models; name one by its precision: {', '.join(ours)}")
        raise ModelNotFound(f"{where} has no model of precision {precision!r}; it has {', '.join(ours)}")
    there = repository.graphs(names)
    return there[repository.choose(there, precision, where)] if there else None


def _last_word(name: str) -> str | None:
    """The precision that a name *.stapes.onnx ends in; None for a plain one."""
    stem = re.split(r"[/._]", name.removesuffix(ARTIFACT))[-1]
    return next((word for word in sorted(PRECISIONS, key=len, reverse=True) if stem == word or stem.endswith(f"-{word}")), None)


def _with_companions(graph: str, names: Collection[str]) -> list[str]:
    """Every file that `graph` needs, itself last: its weights model.onnx_data, model.onnx_data_1, …, and what describes a foreign one."""
    data = re.compile(re.escape(graph) + r"[._]data(?:_\d+)?")
    extractor = next((name for name in EXTRACTORS if name in names), None)
    configs = [] if graph.endswith(ARTIFACT) else [name for name in (CONFIG, extractor) if name in names]
    return [*filter(None, configs), *sorted(filter(data.fullmatch, names)), graph]


def _path(repo: str, folder: Path, names: list[str]) -> Path:
    """The path to load: the artifact, or the folder with the graph in it. `names`: the model's files in `folder`, the graph last.

    ONNX Runtime from 1.24 on refuses weights outside of the folder of the graph, as an attack; where the graph is a link, it takes the
    folder behind the link too (1.24.1 did not). The client's cache is all links. They lead into one folder, which serves, except where
    the client shares large files between repositories (from 2.0 on): there each lies in a folder of its own, and what ONNX Runtime gets
    is a folder of ours with hard links to all.
    """
    *others, graph = names
    behind = {(folder / name).resolve().parent for name in names if name not in (CONFIG, *EXTRACTORS)}
    if len(behind) > 1:
        own = cache.folder() / "graphs" / f"models--{_slug(repo)}" / "snapshots" / folder.name
        for name in (*others, graph):  # the graph last: where it is, the others are
            if not (own / name).exists():
                with cache.placing(own / name) as draft:
                    cache.link(folder / name, draft)
        folder = own
    return folder / graph if graph.endswith(ARTIFACT) else folder


def _exported(repo: str, commit: str, token: str | bool | None, precision: str | None) -> Path:
    """The artifact of that commit, exported now where it has not been."""
    made = _made(repo, commit, precision)
    if os.path.isfile(made):
        return made
    chosen = ("--precision", precision or "fp32")
    if absent := _absent():
        name = repo.partition("/")[2]
        words = ["stapes", "export", repo, "--revision", commit, *(chosen if precision else ()), "-o", f"{name}.onnx"]
        raise ModelError(
            f"{repo} has no ONNX graph, and to export it {', '.join(absent)} is not installed here (pip install 'stapes[export]'); "
            f"or run `{' '.join(words)}` elsewhere and load {name}.onnx by its path"
        )
    with cache.placing(made) as draft:
        print(f"stapes: {repo} has no ONNX graph; exporting it once, to {made}", file=sys.stderr)
        # -P: what lies in the folder one happens to be in is not imported
        command = [sys.executable, "-P", "-m", "stapes.cli", "export", repo, "--revision", commit, *chosen, "-o", str(draft)]
        status, last = _run(command, _token(token))
        if status:
            why = re.sub(r"^stapes[ a-z]*: (error: )?", "", last) if status > 0 else f"signal {-status} ended it"
            raise ModelError(f"the export of {repo} failed: {why}")
    return made


def _token(token: str | bool | None) -> dict[str, str]:
    """The variables that tell another process of the token."""
    if token is False:
        return {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    return {"HF_TOKEN": token, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0"} if isinstance(token, str) else {}


def _absent() -> list[str]:
    """What an export needs and this environment lacks; nothing of it is imported."""
    return [name for name in EXPORTER if find_spec(name) is None]


def _run(command: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """Run a program whose output goes to our standard error as it comes; its exit status and last line."""
    import subprocess  # here: only an export needs it, and every start would pay for it

    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", **variables}
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    tail = ""
    try:
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        return 127, f"cannot start {command[0]!r}: {error.strerror}"
    with child:
        assert child.stdout is not None
        try:
            while chunk := os.read(child.stdout.fileno(), TAIL):  # not by lines: a progress bar is a line that does not end
                text = decode(chunk)
                sys.stderr.write(text)
                sys.stderr.flush()
                tail = (tail + text)[-TAIL:]
        except BaseException:
            child.kill()
            raise
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return child.returncode, lines[-1] if lines else f"exit status {child.returncode}"


def _slug(repo: str) -> str:
    return repo.replace("/", "--")


def _made(repo: str, commit: str, precision: str | None) -> Path:
    return cache.folder() / "exports" / _slug(repo) / commit / f"{precision or 'fp32'}.onnx"


def _ref(repo: str, asked: str) -> Path:
    return cache.folder() / "exports" / _slug(repo) / "refs" / quote(asked, safe="")


def _remember(repo: str, asked: str, commit: str) -> None:
    if asked != commit != _remembered(repo, asked):
        with contextlib.suppress(ModelError), cache.placing(_ref(repo, asked)) as draft:  # a cache that is only read serves all the same
            draft.write_text(commit)


def _remembered(repo: str, asked: str) -> str | None:
    return _first_commit(_ref(repo, asked))


def _in_client_cache(client: Any, repo: str) -> Path:
    """Where huggingface_hub keeps a repository: refs/<branch or tag> holds a commit, snapshots/<commit> its files."""
    return Path(client.constants.HF_HUB_CACHE) / f"models--{_slug(repo)}"


def _commit(client: Any, repo: str, asked: str) -> str | None:
    """The commit that `asked` is, or that the client noted for it."""
    return asked if COMMIT.fullmatch(asked) else _first_commit(_in_client_cache(client, repo) / "refs" / asked)


def _first_commit(ref: Path) -> str | None:
    try:
        found = COMMIT.fullmatch(ref.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None
    return found[0] if found else None


def _final(error: Exception) -> bool:
    """Whether the hub itself said no, so that what an earlier answer left on this disk is no answer."""
    from huggingface_hub import errors

    return isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError) or _refused(error)


def _refused(error: Exception) -> bool:
    from huggingface_hub import errors

    return isinstance(error, errors.HfHubHTTPError) and error.response is not None and error.response.status_code in (401, 403)


def _told(error: Exception, repo: str, asked: str) -> ModelError:
    """What went wrong as a sentence."""
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return ModelError(f"{repo} is gated: accept its terms on the hub and set HF_TOKEN")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelNotFound(f"{repo}: neither a model here nor a repository on the hub (a private one needs HF_TOKEN)")
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFound(f"{repo} has no revision {asked}")
    if _refused(error):
        return ModelError(f"the hub refuses {repo} to this token; check HF_TOKEN")
    if constants.HF_HUB_OFFLINE:
        return ModelNotFound(f"{repo} is not in the local cache and HF_HUB_OFFLINE is set; see HF_HOME and {cache.VARIABLE}")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return ModelNotFound(f"{repo} is not in the local cache and the hub cannot be reached; see HF_ENDPOINT and HF_HOME")
    endpoint = os.environ.get("HF_ENDPOINT")
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return ModelError(f"cannot fetch {repo}{f' from {endpoint}' if endpoint else ''}: {first}")
