"""What a feature view is: the model behind `views:` of a pipeline file, loaded by every DAG parse.

A view is a reference table, of weather, prices or customers, whose rows say since when their values are known. A raw
row gets the values of its entity that were known at its own time: offline by `stages.view_join`, online by
`serving.lookup`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from airworthy import kinds
from airworthy.explain import problem
from airworthy.online import Online
from airworthy.partitions import Duration, span, write_duration
from airworthy.sources import Source

_RESERVED = frozenset({"failed", "partition", "prediction", "row", "version"})

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")]
Columns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]


def _default_online() -> Any:
    return kinds.parse("online", "sqlite")


class View(BaseModel):
    """One feature view.

    Attributes:
        source: Where its rows come from, a partition at a time as the pipeline's own.
        key: The entity: columns of the raw rows and of the view's.
        time: The view's column that says since when a row's values are known. A raw row gets the newest that were
            known at its own time, and of several of one time those of the last row.
        columns: What raw rows get; a value that is not known is missing.
        max_age: Values known for longer than this count as missing.
        online: Where serving looks the latest values up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[Source, kinds.declared("sources"), kinds.as_written]
    key: Columns
    time: Annotated[str, Field(min_length=1)]
    columns: Columns
    max_age: Duration | None = None
    online: Annotated[Online, kinds.declared("online"), kinds.as_written] = Field(default_factory=_default_online)

    @property
    def age(self) -> timedelta | None:
        """`max_age`, as a length of time."""
        return None if self.max_age is None else span(self.max_age)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = (*self.key, self.time, *self.columns)
        if taken := sorted(_RESERVED & set(names)):
            rule = f"must be none of {', '.join(sorted(_RESERVED))}, which the tables use themselves"
            raise problem(rule, taken, loc=("columns",))
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise problem("must each be another column: key, time and columns", repeated, loc=("columns",))
        if self.max_age is not None and (self.max_age.months or self.max_age.years):
            rule = "must be in seconds, minutes, hours, days or weeks, because months differ in length"
            raise problem(rule, write_duration(self.max_age), loc=("max_age",))
        return self


Views = dict[Name, View]


def view_table(name: str) -> str:
    """Returns the name of the table that holds a view's rows."""
    return f"view_{name}"


def check_views(views: Mapping[str, View], taken: Mapping[str, str], personal: Collection[str]) -> None:
    """Returns if no view's column would stand where another column does.

    Args:
        views: By name.
        taken: What the pipeline needs of its raw rows: the role of each column.
        personal: Columns whose values must not be anywhere but in raw rows and in quarantine.

    Raises:
        PydanticCustomError: A column is there twice or personal, or a view is keyed by the label.
    """
    given = {name: f"the {role} of the pipeline" for name, role in taken.items()}
    for view_name, view in views.items():
        if found := sorted({*view.key, *view.columns} & set(personal)):
            rule = "must not be personal (pii), because a view's table and its online store keep the values"
            raise problem(rule, found, loc=("views", view_name))
        for name in view.key:
            if taken.get(name) == "label":
                rule = "must not be the label, which no prediction has yet"
                raise problem(rule, name, loc=("views", view_name, "key"))
        for name in view.columns:
            if name in given:
                rule = f"must be a column of this view alone, but is {given[name]}"
                raise problem(rule, name, loc=("views", view_name, "columns"))
            given[name] = f"a column of the view {view_name}"
