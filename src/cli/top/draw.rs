//! Draws the picture. Pure: it uses nothing but its input.
//!
//! No information is carried by colour alone, so colours can be switched off. What does not fit is dropped, least important first:
//! bars and medians, then rates, then due counts; of the rows, the tiers in the middle.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row as TableRow, Table};

use crate::cli::top::observation::HoldSeen;
use crate::cli::top::picture::{Freshness, LadderPicture, NextDue, Overlay, Picture, Row, RowKind};
use crate::core::delay::format_duration;
use crate::core::ladder::Mode;
use crate::observe::HealthSeen;

/// Smallest size that can be read.
const SMALLEST: (u16, u16) = (36, 8);

/// Below this height no blank line separates the table.
const ROOMY: u16 = 14;

/// The lines of the key help; `kladder top --help` has the same.
pub(super) const KEYS: [(&str, &str); 6] = [
    ("Tab, arrows", "next or previous ladder"),
    ("1 to 9", "ladder by its number"),
    ("p", "hold or resume the ladder; y confirms"),
    ("?", "toggle this help"),
    ("q, Esc", "quit"),
    ("Ctrl-C", "quit, also from a dialog"),
];

/// Draws the picture over the whole frame, with or without colours.
pub(super) fn draw(frame: &mut Frame, picture: &Picture, colours: bool) {
    let area = frame.area();
    let paint = Paint { colours };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("too small: {} columns, {} lines", SMALLEST.0, SMALLEST.1);
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let mut top = paint.head(picture, usize::from(area.width));
    if area.height < ROOMY {
        top.pop();
    }
    let [head, rest, foot] =
        Layout::vertical([Constraint::Length(length(top.len())), Constraint::Min(0), Constraint::Length(1)]).areas(area);
    frame.render_widget(Paragraph::new(top), head);
    if let Some(ladder) = &picture.ladder {
        paint.ladder(frame, rest, ladder);
    }
    frame.render_widget(paint.foot(picture, usize::from(area.width)), foot);
    match picture.overlay {
        Overlay::Nothing => {}
        Overlay::Help => {
            let lines: Vec<String> = KEYS.iter().map(|(key, what)| format!("{key:<12} {what}")).collect();
            paint.boxed(frame, " keys ", &lines);
        }
        Overlay::Confirm { hold } => {
            let name = picture.names.get(picture.chosen).map_or("", String::as_str);
            let (question, what) = if hold {
                (format!("hold {name}?"), "All its workers stop within 2 s.")
            } else {
                (format!("resume {name}?"), "All its workers resume within 2 s.")
            };
            paint.boxed(frame, " y yes, n no ", &[question, what.to_owned()]);
        }
    }
}

/// Number of lines that the complete picture needs.
pub(super) fn lines_needed(picture: &Picture, width: u16) -> u16 {
    let head = Paint { colours: false }.head(picture, usize::from(width)).len();
    let below = picture.ladder.as_ref().map_or(0, |ladder| {
        let workers = ladder.workers.as_ref().map_or(1, |workers| workers.len().max(1));
        1 + ladder.rows.len() + 2 + workers + ladder.seen.notes.len()
    });
    length(head + below + 2)
}

struct Paint {
    colours: bool,
}

impl Paint {
    fn style(&self, colour: Color, modifier: Modifier) -> Style {
        let style = Style::new().add_modifier(modifier);
        if self.colours { style.fg(colour) } else { style }
    }

    fn quiet(&self) -> Style {
        self.style(Color::DarkGray, Modifier::empty())
    }

    fn alarm(&self) -> Style {
        self.style(Color::Red, Modifier::BOLD)
    }

    /// The ladder's name and state, and warnings about the data; ends with a blank line.
    fn head(&self, picture: &Picture, width: usize) -> Vec<Line<'static>> {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let (name, about) = match &picture.ladder {
            Some(ladder) => {
                let mode = if ladder.seen.mode == Mode::Push { "push" } else { "relay" };
                (ladder.seen.name.as_str(), format!(" {mode}, group {}", ladder.seen.group))
            }
            None => (picture.names.get(picture.chosen).map_or("", String::as_str), String::new()),
        };
        let many = picture.names.len() > 1;
        let number = if many { format!("{}/{}  ", picture.chosen + 1, picture.names.len()) } else { String::new() };
        // The time of `2026-01-31T12:00:00Z`.
        let time = picture.now.to_rfc3339().get(11..20).unwrap_or_default().to_owned();
        let right = format!("{number}{time}");
        let room = width.saturating_sub(right.len() + 1);
        let name = fit(name, room);
        let about = fit(&about, room.saturating_sub(wide(&name)));
        let gap = " ".repeat(width.saturating_sub(wide(&name) + wide(&about) + right.len()));
        let mut lines = vec![Line::from(vec![
            Span::styled(name, bold),
            Span::styled(about, self.quiet()),
            Span::raw(gap),
            Span::styled(right, self.quiet()),
        ])];
        if let Some(ladder) = &picture.ladder {
            lines.push(self.standing(ladder, width));
            let down = &ladder.seen.handlers_down;
            if !down.is_empty() {
                lines.push(Line::styled(fit(&format!("HANDLER DOWN at {}", down.join(", ")), width), self.alarm()));
            }
            let letters = ladder.seen.dead_letters_held.iter();
            lines.extend(letters.map(|told| Line::styled(fit(&format!("DEAD LETTERS HELD {told}"), width), self.alarm())));
        }
        lines.extend(picture.caption.iter().map(|caption| Line::styled(fit(caption, width), bold)));
        match &picture.freshness {
            Freshness::Awaited => lines.push(Line::styled("waiting for the cluster", self.quiet())),
            Freshness::Fresh => {}
            Freshness::Stale { age, error } => {
                let age = format_duration(Duration::from_secs(age.as_secs()));
                let why = error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                lines.push(Line::styled(fit(&format!("STALE, {age} old{why}"), width), self.alarm()));
            }
        }
        lines.push(Line::default());
        lines
    }

    fn standing(&self, ladder: &LadderPicture, width: usize) -> Line<'static> {
        let good = self.style(Color::Green, Modifier::BOLD);
        let mut spans = match &ladder.seen.hold {
            HoldSeen::Held(told) => return Line::styled(fit(&format!("HELD {told}"), width), self.alarm()),
            HoldSeen::Running => vec![Span::styled("RUNNING", good)],
            HoldSeen::Unknown => vec![Span::styled("hold state unknown", self.quiet())],
        };
        let handler = ladder.seen.handler.as_ref().map(|handler| {
            let style = match handler.health {
                HealthSeen::Up => good,
                HealthSeen::Degraded | HealthSeen::InDoubt => self.style(Color::Yellow, Modifier::BOLD),
                HealthSeen::Down => self.alarm(),
            };
            Span::styled(format!("  {}", handler.text()), style)
        });
        spans.extend(handler);
        let used: usize = spans.iter().map(Span::width).sum();
        let worker = ladder.worker.as_ref().map_or_else(|| "  no worker answers".to_owned(), |at| format!("  metrics of {at}"));
        spans.push(Span::styled(fit(&worker, width.saturating_sub(used)), self.quiet()));
        Line::from(spans)
    }

    /// The table of topics and, below it, the workers.
    fn ladder(&self, frame: &mut Frame, area: Rect, ladder: &LadderPicture) {
        let workers = self.workers(ladder, usize::from(area.width));
        // Topics come first; the workers get the remaining lines.
        let table = length(1 + ladder.rows.len()).min(area.height);
        let [above, below] = Layout::vertical([Constraint::Length(table), Constraint::Min(0)]).areas(area);
        self.table(frame, above, ladder);
        let shown = workers.into_iter().take(usize::from(below.height)).collect::<Vec<_>>();
        frame.render_widget(Paragraph::new(shown), below);
    }

    fn workers(&self, ladder: &LadderPicture, width: usize) -> Vec<Line<'static>> {
        let mut lines = vec![Line::default(), Line::styled("workers", self.quiet())];
        match &ladder.workers {
            None => lines.push(Line::raw("unknown")),
            Some(workers) if workers.is_empty() => lines.push(Line::styled("NONE", self.alarm())),
            Some(workers) => lines.extend(workers.iter().map(|worker| {
                let name = fit(&format!("{} {}", worker.name, worker.host), width);
                let has = fit(&format!("  {}", worker.has), width.saturating_sub(wide(&name)));
                Line::from(vec![Span::raw(name), Span::styled(has, self.quiet())])
            })),
        }
        lines.extend(ladder.seen.notes.iter().map(|note| Line::styled(fit(&format!("note: {note}"), width), self.quiet())));
        lines
    }

    fn table(&self, frame: &mut Frame, area: Rect, ladder: &LadderPicture) {
        let columns: Vec<&Column> = COLUMNS.iter().filter(|column| area.width >= column.from_width).collect();
        let fixed: u16 = columns.iter().map(|column| column.width + 1).sum();
        let name_width = area.width.saturating_sub(fixed);
        let widths = [name_width].into_iter().chain(columns.iter().map(|column| column.width)).map(Constraint::Length);
        let heads = [Cell::default()].into_iter().chain(columns.iter().map(|column| right(column.head.to_owned())));
        let rows = shortened(&ladder.rows, usize::from(area.height.saturating_sub(1)));
        let rows = rows.iter().map(|row| match row {
            Shown::Row(row) => {
                let name = Cell::from(Span::styled(fit(&name_of(row), usize::from(name_width)), self.of(row)));
                let cells = columns.iter().map(|column| right(fit(&(column.text)(row), usize::from(column.width))));
                TableRow::new([name].into_iter().chain(cells)).style(self.row(row))
            }
            Shown::LeftOut { tiers, waiting } => {
                let text = format!("… {tiers} more tiers");
                let cells = columns.iter().map(|c| right(if c.head == "waiting" { estimate(*waiting) } else { String::new() }));
                TableRow::new([Cell::from(fit(&text, usize::from(name_width)))].into_iter().chain(cells)).style(self.quiet())
            }
        });
        let table = Table::new(rows.collect::<Vec<_>>(), widths).header(TableRow::new(heads).style(self.quiet()));
        frame.render_widget(table.column_spacing(1), area);
    }

    fn of(&self, row: &Row) -> Style {
        match row.kind {
            RowKind::Tier => self.style(Color::Cyan, Modifier::empty()),
            RowKind::DeadLetters => self.style(Color::Magenta, Modifier::empty()),
            RowKind::Source | RowKind::Inbox | RowKind::Redeliver => Style::new(),
        }
    }

    /// A row without waiting records is dimmed.
    fn row(&self, row: &Row) -> Style {
        if row.waiting == 0 { self.quiet() } else { Style::new() }
    }

    fn foot(&self, picture: &Picture, width: usize) -> Line<'static> {
        if let Some(told) = &picture.told {
            return Line::styled(fit(told, width), Style::new().add_modifier(Modifier::BOLD));
        }
        let held = picture.ladder.as_ref().is_some_and(|ladder| matches!(ladder.seen.hold, HoldSeen::Held(_)));
        let mut text = format!("q quit  ? help  p {}", if held { "resume" } else { "hold" });
        if picture.names.len() > 1 {
            text.push_str("  Tab next ladder");
        }
        Line::styled(fit(&text, width), self.quiet())
    }

    fn boxed(&self, frame: &mut Frame, title: &str, lines: &[String]) {
        let area = frame.area();
        let widest = lines.iter().map(|line| wide(line)).chain([wide(title)]).max().unwrap_or(0);
        let width = length(widest + 4).min(area.width);
        let height = length(lines.len() + 2).min(area.height);
        let over = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
        let inside = usize::from(width.saturating_sub(4));
        let text: Vec<Line> = lines.iter().map(|line| Line::raw(format!(" {} ", fit(line, inside)))).collect();
        frame.render_widget(Clear, over);
        let border = self.style(Color::Cyan, Modifier::empty());
        frame.render_widget(Paragraph::new(text).block(Block::bordered().title(title.to_owned()).border_style(border)), over);
    }
}

/// A column beside the names.
struct Column {
    head: &'static str,
    width: u16,
    /// Minimum screen width at which it is shown.
    from_width: u16,
    text: fn(&Row) -> String,
}

const COLUMNS: [Column; 8] = [
    Column { head: "waiting", width: 8, from_width: 0, text: |row| estimate(row.waiting) },
    Column { head: "due", width: 7, from_width: 56, text: |row| row.due.map(estimate).unwrap_or_default() },
    Column { head: "next due", width: 11, from_width: 0, text: next },
    Column { head: "", width: 10, from_width: 110, text: |row| row.next.map(bar).unwrap_or_default() },
    Column { head: "in/s", width: 8, from_width: 74, text: |row| rate(row, row.rate_in) },
    Column { head: "out/s", width: 8, from_width: 74, text: |row| rate(row, row.rate_out) },
    Column { head: "late p50", width: 9, from_width: 100, text: |row| row.lateness.map(|l| seconds(l.p50)).unwrap_or_default() },
    Column { head: "late p99", width: 9, from_width: 80, text: |row| row.lateness.map(|l| seconds(l.p99)).unwrap_or_default() },
];

fn name_of(row: &Row) -> String {
    if row.kind == RowKind::Source { format!("source {}", row.name) } else { row.name.clone() }
}

/// Offsets also count transaction markers.
fn estimate(count: i64) -> String {
    if count == 0 { "0".to_owned() } else { format!("~{}", short(count)) }
}

/// At most six characters.
fn short(count: i64) -> String {
    let in_units = |unit: i64, letter: char| format!("{}.{}{letter}", count / unit, count / (unit / 10) % 10);
    match count {
        ..1_000_000 => count.to_string(),
        1_000_000..1_000_000_000 => in_units(1_000_000, 'M'),
        _ => in_units(1_000_000_000, 'G'),
    }
}

fn rate(row: &Row, rate: Option<f64>) -> String {
    // Sources are usually written without transactions.
    let about = if row.kind == RowKind::Source { "" } else { "~" };
    match rate {
        None => String::new(),
        Some(0.0) => "0".to_owned(),
        Some(rate) => format!("{about}{rate:.1}"),
    }
}

/// `in 3.2s`, `2m5s ago`; for dead letters the number of open ones.
fn next(row: &Row) -> String {
    let open = row.open.map(|open| format!("{} open", short(open)));
    row.next.map(next_due_text).or(open).unwrap_or_default()
}

fn next_due_text(next: NextDue) -> String {
    let distance = brief(next.distance);
    if next.is_due { format!("{distance} ago") } else { format!("in {distance}") }
}

/// At most six characters: tenths of a second below ten seconds, and at most two units.
fn brief(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..3_600 => format_duration(Duration::from_secs(seconds)),
        3_600..86_400 => format_duration(Duration::from_secs(seconds / 60 * 60)),
        _ => format_duration(Duration::from_secs(seconds / 3_600 * 3_600)),
    }
}

fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) { format!("{}ms", duration.as_millis()) } else { brief(duration) }
}

/// How much of the oldest record's delay has passed.
fn bar(next: NextDue) -> String {
    let cells = 10;
    let full = (0..cells).filter(|cell| f64::from(*cell) + 0.5 <= next.over * f64::from(cells)).count();
    ["█".repeat(full), "░".repeat(10 - full)].concat()
}

enum Shown<'a> {
    Row(&'a Row),
    LeftOut { tiers: usize, waiting: i64 },
}

/// All rows, or as many as fit: of the tiers, the first ones and the last one are kept longest.
fn shortened(rows: &[Row], room: usize) -> Vec<Shown<'_>> {
    let over = rows.len().saturating_sub(room);
    let tiers: Vec<usize> = (0..rows.len()).filter(|at| rows[*at].kind == RowKind::Tier).collect();
    // One row is needed for the line that says so; it saves nothing unless two tiers are dropped.
    let gone = (over + 1).min(tiers.len().saturating_sub(2));
    if over == 0 || gone < 2 {
        return rows.iter().map(Shown::Row).collect();
    }
    let last = tiers[tiers.len() - 1];
    let out = last - gone..last;
    let waiting = rows[out.clone()].iter().map(|row| row.waiting).sum();
    let mut shown: Vec<Shown> = rows[..out.start].iter().map(Shown::Row).collect();
    shown.push(Shown::LeftOut { tiers: gone, waiting });
    shown.extend(rows[out.end..].iter().map(Shown::Row));
    shown
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::raw(text).alignment(Alignment::Right))
}

fn wide(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text, cut to `columns` screen columns, with `…` where it was cut.
fn fit(text: &str, columns: usize) -> String {
    if wide(text) <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    for char in text.chars() {
        let longer = format!("{cut}{char}");
        if wide(&longer) + 1 > columns {
            break;
        }
        cut = longer;
    }
    if columns > 0 { cut + "…" } else { cut }
}

fn length(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
