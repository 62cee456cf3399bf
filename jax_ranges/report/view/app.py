"""The browser itself. One state, one way: a key changes the state, and the screen follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from rich.text import Text
from textual import on
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Container, Horizontal
from textual.widgets import Footer, Input, Static

from jax_ranges.report.rows import sites_text
from jax_ranges.report.tables import caption
from jax_ranges.report.view.detail import neighbours
from jax_ranges.report.view.filters import DIRECTIONS, ONLY, Filters
from jax_ranges.report.view.keys import Keys
from jax_ranges.report.view.lines import Lines
from jax_ranges.report.view.menu import Menu
from jax_ranges.report.view.model import Model
from jax_ranges.report.view.pane import Details
from jax_ranges.report.view.sites import SiteTable
from jax_ranges.report.view.sorts import SORTS, sorted_sites, sorts_of
from jax_ranges.report.view.tree import ScopeTree

HINT = "parts of a name, primitive or file: mul layer_?/mlp"


class Search(Input):
    """What is searched for; the table follows every letter."""

    BINDINGS: ClassVar = [
        Binding("enter,down", "submit", "to the table"),
        Binding("escape", "app.clear", "no filter"),
    ]


class Browser(App[None]):
    """Ranges in a terminal: a tree of scopes, a table of sites, the details of one."""

    CSS_PATH = "view.tcss"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide")]  # noqa: RUF012 - textual does not call it a ClassVar
    BINDINGS: ClassVar = [
        Binding("question_mark", "keys", "keys", tooltip="this help"),
        Binding("q,ctrl+c", "quit", "quit"),
        Binding(
            "slash",
            "search",
            "search",
            tooltip="search parts of names, primitives, files (? and * are wild)",
        ),
        Binding("s", "sort", "sort", tooltip="choose the order"),
        Binding("r", "reverse", "reverse", show=False, tooltip="turn the order round"),
        Binding("n", "only('NaN or inf')", "nan/inf", tooltip="only NaN or inf, or all again"),
        Binding("c", "only('changed')", "changed", tooltip="only what changed, or all again"),
        Binding("f", "format", "format", tooltip="choose the format that sites are judged by"),
        Binding("o", "choose_only", "only", tooltip="only what is beyond the format, and the like"),
        Binding("g", "neighbour", "go to", tooltip="go to what feeds this site, or what it feeds"),
        Binding("u", "return", "back", show=False, tooltip="back to where g was pressed"),
        Binding("p", "choose('primitive')", "primitive", tooltip="only one primitive"),
        Binding("d", "choose('dtype')", "dtype", tooltip="only one dtype"),
        Binding("b", "direction", "pass", tooltip="forward, backward, or both"),
        Binding("t", "tree", "tree", show=False, tooltip="go to the tree, or hide it"),
        Binding("z", "details", "details", show=False, tooltip="go to the details, or hide them"),
        Binding("y", "copy", "copy", show=False, tooltip="copy the name (if the terminal lets us)"),
        Binding("escape", "clear", "clear", show=False, tooltip="no filter any more"),
    ]

    def __init__(self, model: Model):
        super().__init__()
        self.model = model
        self.filters = Filters(only="changed" if model.changed else "")
        self.sort = "score" if model.compared else "program"
        self.reverse = False
        self.format = 0
        self.visited: list[int] = []
        # Kept, not queried for: events may still come when all ends and the parts are gone.
        self.scopes = ScopeTree(model)
        self.table = SiteTable(model)
        self.details = Details(model)
        self.search = Search(placeholder=HINT, id="search")
        self.status = Static(id="status")

    def compose(self) -> ComposeResult:
        """The parts, from top to bottom."""
        yield Static(self._title(), id="title")
        yield self.search
        with Horizontal():
            yield self.scopes
            with Container(id="main"):
                yield self.table
                yield self.details
        yield self.status
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Draw all."""
        self.scopes.set_class(not self.model.scopes.inside, "none")
        self.table.focus()
        self.update()

    # -- the state, and what follows ------------------------------------------------------------

    def update(self) -> None:
        """Show what the state says."""
        passing = self.filters.passing(self.model, self.format)
        shown = sorted_sites(self.model, passing, self.sort, self.reverse)
        self.table.show(shown, self.format)
        self.scopes.show(self.filters.scope, self.format)
        self.status.update(self._status(len(shown)))

    def narrow(self, **filters: Any) -> None:
        """Filter by something else."""
        self.filters = replace(self.filters, **filters)
        self.update()

    def _title(self) -> Text:
        name = (f" {self.model.title} ", "bold reverse")
        return Text.assemble(
            name, " ", *caption(self.model.rows), no_wrap=True, overflow="ellipsis"
        )

    def _status(self, shown: int) -> Text:
        total = len(self.model.rows)
        count = sites_text(total) if shown == total else f"{shown:,} of {sites_text(total)}"
        order = SORTS[self.sort].says + (", reversed" if self.reverse else "")
        filters = self.filters.says(self.model, self.format)
        fmt = f"▲ {self.model.formats[self.format].name}"
        return Text.assemble(
            (f" {count}", "bold"),
            (f" · {order}", ""),
            *((f" · {text}", "bold magenta") for text in filters),
            (" (esc: all)" if filters else "", "dim"),
            (f" · {fmt}", "yellow"),
            no_wrap=True,
            overflow="ellipsis",
        )

    @on(Lines.Moved, "#sites")
    def _moved(self) -> None:
        """Details follow."""
        self.details.show(self.table.site, self.format)

    @on(Lines.Chosen, "#tree")
    def _scope_chosen(self) -> None:
        """Only this scope; all again if it is chosen a second time."""
        node = self.scopes.node
        again = node is self.filters.scope or node is self.model.scopes
        self.narrow(scope=None if again else node)

    @on(Lines.Chosen, "#sites")
    def _site_chosen(self) -> None:
        """To the details."""
        self.details.remove_class("none").focus()

    # -- search ---------------------------------------------------------------------------------

    def action_search(self) -> None:
        """Show the field to type in."""
        self.search.add_class("shown").focus()

    @on(Input.Changed, "#search")
    def _typed(self, event: Input.Changed) -> None:
        if event.value != self.filters.search:
            self.narrow(search=event.value)

    @on(Input.Submitted, "#search")
    def _searched(self) -> None:
        self.table.focus()

    def action_clear(self) -> None:
        """No filter any more, and to the table."""
        search = self.search.remove_class("shown")
        with search.prevent(Input.Changed):
            search.value = ""
        self.table.focus()
        self.narrow(**vars(Filters()))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys there are: nothing has changed where nothing is compared, for example."""
        if action == "search":
            return not isinstance(self.focused, Search)
        return action != "only" or self.model.compared or "changed" not in parameters

    # -- filters and order ----------------------------------------------------------------------

    def action_only(self, only: str) -> None:
        """Only what is so, or all again."""
        self.narrow(only="" if self.filters.only == only else only)

    def action_choose_only(self) -> None:
        """Choose what a site must be."""
        found = [only for only in ONLY if only != "changed" or self.model.compared]
        everything = range(len(self.model.rows))
        counts = [sum(ONLY[only](self.model, i, self.format) for i in everything) for only in found]
        texts = [f"{only}  {count:,}" for only, count in zip(found, counts, strict=True)]
        self._choose("Only sites that are ...", ["", *found], ["all", *texts], "only")

    def action_choose(self, what: str) -> None:
        """Choose a primitive or a dtype."""
        tally = self.model.tally(what)
        texts = [f"{value}  {count:,}" for value, count in tally]
        self._choose(f"Only the {what} ...", ["", *(v for v, _ in tally)], ["all", *texts], what)

    def _choose(self, title: str, values: Sequence[str], texts: Sequence[str], what: str) -> None:
        def chosen(i: int | None) -> None:
            if i is not None:
                self.narrow(**{what: values[i]})

        now = getattr(self.filters, what)
        self.push_screen(Menu(title, texts, values.index(now) if now in values else 0), chosen)

    def action_direction(self) -> None:
        """The next of forward, backward, both."""
        place = DIRECTIONS.index(self.filters.direction)
        self.narrow(direction=DIRECTIONS[(place + 1) % len(DIRECTIONS)])

    def action_sort(self) -> None:
        """Choose the order."""
        sorts = sorts_of(self.model)
        names = list(sorts)

        def chosen(i: int | None) -> None:
            if i is not None:
                self._arrange(names[i], False)

        texts = [f"{name:<9} {sort.says}" for name, sort in sorts.items()]
        self.push_screen(Menu("Sort by ...", texts, names.index(self.sort)), chosen)

    def action_reverse(self) -> None:
        """Turn the order round."""
        self._arrange(self.sort, not self.reverse)

    def _arrange(self, sort: str, reverse: bool) -> None:
        """Sort, and look at what is first now."""
        self.sort, self.reverse = sort, reverse
        self.update()
        self.table.to(0)

    def action_format(self) -> None:
        """Choose the format that sites are judged by."""

        def chosen(i: int | None) -> None:
            if i is not None:
                self.format = i
                self.update()

        over = self.model.scopes.over
        formats = zip(self.model.formats, over, strict=True)
        texts = [f"{fmt.name:<16} ▲ {sites_text(count)} beyond" for fmt, count in formats]
        self.push_screen(Menu("Judge sites by ...", texts, self.format), chosen)

    # -- going places ---------------------------------------------------------------------------

    def action_neighbour(self) -> None:
        """Choose among what feeds the site at the cursor and what it feeds."""
        site = self.table.site
        found = [] if site is None else neighbours(self.model, site, self.size.width * 3 // 4)
        if site is None or not found:
            self.notify("nothing here is known to feed it, or to be fed by it")
            return

        def chosen(i: int | None) -> None:
            if i is not None:
                self.visited.append(site)
                self.go(found[i][0])

        self.push_screen(Menu("Go to ...", [text for _, text in found]), chosen)

    def action_return(self) -> None:
        """To where `g` was pressed."""
        if self.visited:
            self.go(self.visited.pop())

    def go(self, site: int) -> None:
        """Put the cursor at a site; filters that hide it are given up."""
        table = self.table
        if site not in table.shown:
            self.action_clear()
        table.to(table.shown.index(site))

    def action_copy(self) -> None:
        """The name of the site at the cursor, by the terminal's own escape sequence."""
        site = self.table.site
        if site is not None:
            self.copy_to_clipboard(self.model.entries[site].site.name)
            self.notify(f"copied {self.model.rows[site].name}", markup=False)

    # -- the parts ------------------------------------------------------------------------------

    def action_tree(self) -> None:
        """To the tree; hide it if that is where we are."""
        self._toggle(self.scopes)

    def action_details(self) -> None:
        """To the details; hide them if that is where we are."""
        self._toggle(self.details)

    def _toggle(self, part: Any) -> None:
        hide = part.display and part.has_focus
        part.set_class(hide, "none")
        part.set_class(not hide, "shown")
        (self.table if hide else part).focus()

    def action_keys(self) -> None:
        """Say the keys."""
        move = [
            Binding("tab,shift+tab", "", "to the next part, or the one before"),
            *Lines.BINDINGS,
        ]
        groups = [("Everywhere", self.BINDINGS), ("In the table and the tree", move)]
        self.push_screen(Keys([*groups, ("In the tree", ScopeTree.BINDINGS)]))
