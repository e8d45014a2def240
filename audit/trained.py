"""What a run was trained on, as far as its recorded files are still there: read once, for all parts of an audit."""

from dataclasses import dataclass

from audit.subject import TEXTS
from common.errors import UserError, line_of
from common.files import find_path
from data.checks import TrainingTexts
from data.posts import Post
from finetune.options import TrainOptions
from finetune.prepare import Prepared
from finetune.recorded import prepared_of
from finetune.run_folder import RunFolder
from loading.sources import find_place


@dataclass
class Trained:
    """The run's options and posts, read from the very bytes that it recorded; or None, and `why` they are not there.

    stored: the hashes of texts that the run's folder holds; None where they cannot be read.
    """

    options: TrainOptions | None
    prepared: Prepared | None
    why: str | None
    stored: TrainingTexts | None

    @classmethod
    def of(cls, run: RunFolder, model: str) -> "Trained":
        """Raises `UserError` where neither the posts nor the hashes of their texts can be read."""
        options = prepared = stored = why = None
        try:
            options, prepared = prepared_of(run, model)
        except Exception as error:
            if (why := line_of(error)) is None:
                raise
        try:
            stored = TrainingTexts.from_file(run.path / TEXTS)
        except UserError:
            if prepared is None:
                raise
        return cls(options, prepared, why, stored)

    @property
    def texts(self) -> TrainingTexts:
        """Of the recorded data where they are there, since the list in the run's folder can be changed."""
        return self.stored if self.prepared is None else self.prepared.texts

    @property
    def posts(self) -> list[Post] | None:
        """Every post that the run had, also those that chose its adapter; None where they are not there."""
        return None if self.prepared is None else self.prepared.train + self.prepared.validation


def base_of(run: RunFolder, model: str | None) -> str:
    """Where the run's base is. Raises `UserError` for one that would have to be fetched, unless `model` names it: a
    run's files come from whoever made it, and must not decide what is taken from a network."""
    if model is not None:
        return model
    name = run.facts["options"]["model"]
    try:
        return name if find_path(name).exists() else str(find_place(name, fetch=False))
    except UserError as error:
        raise UserError(f"{run.path / 'run.json'}: its base {name} is not on this machine, and an audit fetches "
                        f"nothing that a run's file names; if you trust it, --model {name}") from error
