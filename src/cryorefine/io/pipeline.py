"""RELION's ``default_pipeline.star``: which jobs a project has, and which file of one goes into another.

RELION 4 and 5 write words for the kinds and states of jobs and files, RELION 3 writes numbers; both are
read, and a file is written back in the kind it was. Lines that are not changed stay as they are, letter
by letter, and so does every block and every remark that is not known here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryorefine.errors import UserError
from cryorefine.io._pipeline_table import Table, parse_blocks
from cryorefine.io.files import write_whole
from cryorefine.io.pipeline_words import STATES, node_number, process_label, process_number

PIPELINE_FILE = "default_pipeline.star"

_PROCESSES, _NODES = "pipeline_processes", "pipeline_nodes"
_INPUTS, _OUTPUTS = "pipeline_input_edges", "pipeline_output_edges"
_EDGES = {
    _INPUTS: ("rlnPipeLineEdgeFromNode", "rlnPipeLineEdgeProcess"),
    _OUTPUTS: ("rlnPipeLineEdgeProcess", "rlnPipeLineEdgeToNode"),
}
_NAME, _ALIAS = "rlnPipeLineProcessName", "rlnPipeLineProcessAlias"
_LABEL, _STATUS = "rlnPipeLineProcessTypeLabel", "rlnPipeLineProcessStatusLabel"
_TYPE_NUMBER, _STATUS_NUMBER = "rlnPipeLineProcessType", "rlnPipeLineProcessStatus"
_NODE, _NODE_LABEL, _NODE_NUMBER = "rlnPipeLineNodeName", "rlnPipeLineNodeTypeLabel", "rlnPipeLineNodeType"
_DEPTH = "rlnPipeLineNodeTypeLabelDepth"
_COUNTER = re.compile(r"(?m)^(_rlnPipeLineJobCounter[ \t]+)(\d+)")


@dataclass(frozen=True)
class Process:
    """A job of a project as the pipeline knows it.

    Attributes
    ----------
    name : str
        Folder of the job within the project, e.g. "Refine3D/job012".
    alias : str
        The name a person gave it, e.g. "bin6"; empty if none.
    label : str
        Its kind, e.g. "relion.refine3d.tomo"; empty for a number that is not known.
    status : str
        "Running", "Scheduled", "Succeeded", "Failed" or "Aborted".
    """

    name: str
    alias: str
    label: str
    status: str


class Pipeline:
    """The pipeline of a project, to be read off and changed; see the module.

    Parameters
    ----------
    text : str
        Content of the file.
    path : path-like
        Its name, for messages.

    Raises
    ------
    UserError
        If the file is damaged: without a counter of jobs, or with a row of the wrong length.
    """

    def __init__(self, text: str, path: str | os.PathLike[str] = PIPELINE_FILE) -> None:
        self.path = Path(path)
        self._blocks = parse_blocks(text, self.path)
        general = self._blocks.get("pipeline_general")
        if not isinstance(general, str) or _COUNTER.search(general) is None:
            raise self._damaged("it does not say how many jobs there are")
        version = re.search(r"(?m)^# version (\d+)", text)
        self._version = version[1] if version else "50001"
        self._check()

    @property
    def job_counter(self) -> int:
        """Number that the next job will get."""
        match = _COUNTER.search(str(self._blocks["pipeline_general"]))
        return int(match[2]) if match else 1

    @job_counter.setter
    def job_counter(self, number: int) -> None:
        text = str(self._blocks["pipeline_general"])
        self._blocks["pipeline_general"] = _COUNTER.sub(
            lambda match: f"{match[1]}{number:>{len(match[2])}}", text, count=1
        )

    @property
    def in_numbers(self) -> bool:
        """Whether kinds and states are numbers, as in RELION 3."""
        for name, label in ((_PROCESSES, _TYPE_NUMBER), (_NODES, _NODE_NUMBER)):
            if table := self._table(name):
                return label in table.labels
        # RELION 4 and 5 read a pipeline with numbers, RELION 3 reads no other.
        return int(self._version) <= 30001

    def processes(self) -> list[Process]:
        """Return the jobs in the order in which they stand in the file."""
        table = self._table(_PROCESSES)
        if table is None:
            return []
        found = []
        for words in table.words():
            row = dict(zip(table.labels, words, strict=True))
            alias = row.get(_ALIAS, "None").rstrip("/")
            if self.in_numbers:
                number = row[_STATUS_NUMBER]
                label = process_label(row[_TYPE_NUMBER])
                status = STATES[int(number)] if number in "01234" else number
            else:
                label, status = row[_LABEL], row[_STATUS]
            name = row[_NAME].rstrip("/")
            found.append(Process(name, "" if alias == "None" else alias.rpartition("/")[2], label, status))
        return found

    def nodes(self) -> dict[str, str]:
        """Return the name of each file that the pipeline knows, and its kind as it stands in the file."""
        table = self._table(_NODES)
        if table is None:
            return {}
        name, kind = table.column(_NODE), table.column(_NODE_NUMBER if self.in_numbers else _NODE_LABEL)
        return {words[name]: words[kind] for words in table.words()}

    def inputs(self, process: str) -> list[str]:
        """Return the files that go into a job."""
        return self._edges_of(_INPUTS, process)

    def outputs(self, process: str) -> list[str]:
        """Return the files that come out of a job."""
        return self._edges_of(_OUTPUTS, process)

    def put_process(self, process: Process) -> None:
        """Add a job, or change the one of that name; its number is not given to another one.

        A job that has no number among those of RELION 3 counts as an external one there.
        """
        table = self._table(_PROCESSES)
        if table is None:
            kinds = [_TYPE_NUMBER, _STATUS_NUMBER] if self.in_numbers else [_LABEL, _STATUS]
            table = self._new_table(_PROCESSES, [_NAME, _ALIAS, *kinds])
        folder = process.name.partition("/")[0]
        row = table.find(**{_NAME: process.name})
        self._put(
            table,
            {
                _NAME: f"{process.name}/",
                _ALIAS: f"{folder}/{process.alias}/" if process.alias else "None",
                _LABEL: process.label,
                _STATUS: process.status,
                _TYPE_NUMBER: process_number(process.label),
                _STATUS_NUMBER: str(STATES.index(process.status)),
            },
            row,
        )
        if number := re.fullmatch(r".*job(\d+)", process.name):
            self.job_counter = max(self.job_counter, int(number[1]) + 1)

    def remove_process(self, process: str) -> None:
        """Take a job out, with its edges and the files that nothing else needs."""
        mine = set(self.outputs(process)) | set(self.inputs(process))
        for name, label in (
            (_PROCESSES, _NAME),
            (_INPUTS, _EDGES[_INPUTS][1]),
            (_OUTPUTS, _EDGES[_OUTPUTS][0]),
        ):
            while (table := self._table(name)) and (row := table.find(**{label: process})) is not None:
                del table.rows[row]
        kept = set()
        for name, column in ((_INPUTS, 0), (_OUTPUTS, 1)):
            if table := self._table(name):
                kept |= {words[column] for words in table.words()}
        nodes = self._table(_NODES)
        for node in mine - kept:
            if nodes and (row := nodes.find(**{_NODE: node})) is not None:
                del nodes.rows[row]
        for name in (_PROCESSES, _NODES, _INPUTS, _OUTPUTS):
            # RELION leaves out tables without rows, and so does a pipeline that has just begun.
            if (table := self._table(name)) and not table.words():
                self._drop(name)

    def add_input(self, process: str, node: str, label: str) -> None:
        """Say that a file goes into a job.

        A file that is known already keeps its kind; one of a kind that RELION 3 does not have is left
        out of a pipeline with numbers.
        """
        if self._add_node(node, label):
            self._add_edge(_INPUTS, (node, f"{process}/"))

    def add_output(self, process: str, node: str, label: str) -> None:
        """Say that a file came out of a job, as :meth:`add_input` does of one that goes in."""
        if self._add_node(node, label):
            self._add_edge(_OUTPUTS, (f"{process}/", node))

    def text(self) -> str:
        """Return the content of the file."""
        return "".join(block if isinstance(block, str) else block.text() for block in self._blocks.values())

    def write(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write the file; it appears under its name when it is whole."""
        target = Path(path or self.path)
        with write_whole(target) as temporary:
            temporary.write_bytes(self.text().encode("utf-8", "surrogateescape"))
            if target.exists():
                temporary.chmod(target.stat().st_mode & 0o777)  # a project may be shared by a group

    def _table(self, name: str) -> Table | None:
        block = self._blocks.get(name)
        return block if isinstance(block, Table) else None

    def _new_table(self, name: str, labels: list[str]) -> Table:
        lines = [f"\n# version {self._version}\n\ndata_{name}\n\nloop_ \n"]
        lines += [f"_{label} #{number} \n" for number, label in enumerate(labels, start=1)]
        last = next(reversed(self._blocks))
        block = self._blocks[last]
        if not (block if isinstance(block, str) else block.text()).endswith("\n"):
            self._blocks[f"{last} end"] = "\n"
        table = Table("".join(lines), labels, tail=" \n")
        self._blocks[name] = table
        return table

    def _drop(self, name: str) -> None:
        """Take out a table, with the line of its version that stands before it."""
        names = list(self._blocks)
        before = self._blocks[names[names.index(name) - 1]]
        version = re.compile(r"\n# version \d+\n+\Z")
        if isinstance(before, Table):
            before.tail = version.sub("", before.tail)
        else:
            self._blocks[names[names.index(name) - 1]] = version.sub("", before)
        del self._blocks[name]

    def _put(self, table: Table, values: dict[str, str], row: int | None = None) -> None:
        if row is not None:
            values = dict(zip(table.labels, table.rows[row][0], strict=True)) | values
        try:
            table.put(values, row)
        except KeyError as error:
            raise UserError(
                f"{self.path} has a column {error.args[0]} that is not known here, so nothing can be "
                "added to it; it may be of a newer RELION."
            ) from None

    def _add_node(self, node: str, label: str) -> bool:
        """Add a file that is not known yet; return whether it is known now."""
        if node not in self.nodes() and self.in_numbers and not node_number(label):
            return False
        table = self._table(_NODES)
        if table is None:
            kinds = [_NODE_NUMBER] if self.in_numbers else [_NODE_LABEL, _DEPTH]
            table = self._new_table(_NODES, [_NODE, *kinds])
        if table.find(**{_NODE: node}) is None:
            # RELION offers a map of one half where one is asked for, but not where any map will do.
            depth = "99" if label.endswith("halfmap.reconstruct") else "1"
            values = {_NODE: node, _NODE_LABEL: label, _NODE_NUMBER: node_number(label), _DEPTH: depth}
            self._put(table, values)
        return True

    def _add_edge(self, name: str, values: tuple[str, str]) -> None:
        table = self._table(name) or self._new_table(name, list(_EDGES[name]))
        edge = dict(zip(_EDGES[name], values, strict=True))
        if table.find(**edge) is None:
            self._put(table, edge)

    def _edges_of(self, name: str, process: str) -> list[str]:
        table = self._table(name)
        if table is None:
            return []
        of = table.column("rlnPipeLineEdgeProcess")
        return [words[1 - of] for words in table.words() if words[of].rstrip("/") == process.rstrip("/")]

    def _check(self) -> None:
        """Refuse tables without the columns that every RELION has written."""
        numbers = self.in_numbers
        needed = {
            _PROCESSES: (_NAME, _TYPE_NUMBER, _STATUS_NUMBER) if numbers else (_NAME, _LABEL, _STATUS),
            _NODES: (_NODE, _NODE_NUMBER if numbers else _NODE_LABEL),
            **_EDGES,
        }
        for name, labels in needed.items():
            table = self._table(name)
            if name in self._blocks and table is None:
                raise self._damaged(f"data_{name} is no table")
            for label in labels if table else ():
                if table is not None and label not in table.labels:
                    raise self._damaged(f"data_{name} has no column _{label}")

    def _damaged(self, why: str) -> UserError:
        return UserError(f"{self.path} is damaged: {why}; put back a whole copy of it.")


def read_pipeline(path: str | os.PathLike[str]) -> Pipeline:
    """Read the pipeline of a project of RELION 3, 4 or 5.

    Raises
    ------
    UserError
        If the file is missing, may not be read or is damaged.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the folder of a RELION project.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); change its permissions.") from error
    return Pipeline(content.decode("utf-8", "surrogateescape"), path)


def new_pipeline(path: str | os.PathLike[str]) -> Pipeline:
    """Return the pipeline of a project without jobs, as RELION 5 would write it; nothing is written."""
    return Pipeline(
        "\n# version 50001\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter                       1\n \n",
        path,
    )


def node_folder(pipeline: Pipeline, label: str) -> str:
    """Return the folder below ``.Nodes`` in which RELION's file dialogue looks for files of a kind."""
    return node_number(label) if pipeline.in_numbers else label
