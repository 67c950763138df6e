//! `kladder top`
//!
//! One thread observes the cluster, one reads keys, one waits for signals; all send to the main thread, which alone draws.
//! [`picture`] and [`draw`] are pure, so that the drawing is tested without a cluster or a terminal.

mod draw;
#[cfg(test)]
mod fixtures;
mod keys;
mod look;
mod observation;
mod picture;
mod screen;
mod view;

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::crossterm::event::{self, Event, KeyEvent};
use ratatui::text::Span;
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::{ConfigArg, chosen_ladders, config_file};
use crate::config::{Config, LadderConfig};
use crate::core::delay::Delay;
use crate::kafka::clock::Clock;
use draw::{draw, lines_needed};
use look::{Command, Looker, News};
use picture::Picture;
use screen::Screen;
use view::{Effect, View};

/// Redraw interval while nothing happens, for the countdowns.
const TICK: Duration = Duration::from_millis(250);

/// How long a running observation may delay the exit.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Width of a printed picture, in columns.
const PRINTED_COLUMNS: u16 = 100;

/// Keys and columns.
const AFTER_HELP: &str = "\
Keys:
  Tab, arrows  next or previous ladder
  1 to 9       ladder by its number
  p            hold or resume the ladder; y confirms
  ?            toggle this help
  q, Esc       quit
  Ctrl-C       quit, also from a dialog

Columns:
  waiting    records that the group has not finished; an estimate (~) by offsets, which also count transaction markers
  next due   when the oldest record of a tier is due, or how long it has been due; for dead letters the number of open ones
  in, out    records per second over the last ten seconds, by offsets too
  late       from due to redelivered, since the start of the worker at health.listen: of that worker alone, as are the handler
             and the open dead letters

Outdated data is marked STALE, with its age and the reason.";

/// Watch the ladders live: waiting records, due times, workers
///
/// Reads the cluster, and the metrics of the worker at health.listen if one answers. Needs a terminal; for scripts use kladder
/// status. If `NO_COLOR` is set, no colours are used.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct TopArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Only this ladder; may be repeated
    #[arg(long = "ladder", value_name = "NAME")]
    ladders: Vec<String>,

    /// Refresh interval, at least 200ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    every: Duration,

    /// Print one picture of each ladder as text and exit; rates are measured between two
    /// observations
    #[arg(long)]
    once: bool,
}

/// stdout is not a terminal.
#[derive(Debug, Error)]
#[error("stdout is not a terminal: use `kladder status` in scripts, or `kladder top --once` to print one picture as text")]
pub struct NoTerminal;

fn interval(text: &str) -> Result<Duration, String> {
    let every = text.parse::<Delay>().map_err(|error| error.to_string())?.duration();
    if every < Duration::from_millis(200) { Err("must be at least 200ms".to_owned()) } else { Ok(every) }
}

pub fn run(args: TopArgs) -> anyhow::Result<Exit> {
    let config = config_file::load(&args.config)?.config;
    let ladders = chosen_ladders(&config, &args.ladders)?;
    let view = View::new(ladders.iter().map(|ladder| ladder.ladder.name().to_owned()).collect(), args.every);
    if args.once {
        return once(view, Looker::connect(&config, &ladders)?, args.every);
    }
    if !output::stdout_is_terminal() {
        return Err(NoTerminal.into());
    }
    live(view, &config, &ladders, &Beside::default)?;
    Ok(Exit::Done)
}

/// What the demo adds to the picture, updated before each drawing.
#[derive(Default)]
pub(in crate::cli) struct Beside {
    /// A line above the table.
    pub caption: Option<String>,
    /// Whether to end.
    pub is_over: bool,
}

/// Why a picture has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum End {
    /// The program that shows it has ended it.
    Over,
    /// A key was pressed.
    Key,
    /// A signal arrived.
    Signal,
}

/// Shows one ladder, observed at this interval, until it ends.
pub(in crate::cli) fn show_one(
    config: &Config,
    ladder: &LadderConfig,
    every: Duration,
    beside: &dyn Fn() -> Beside,
) -> anyhow::Result<End> {
    live(View::new(vec![ladder.ladder.name().to_owned()], every), config, &[ladder], beside)
}

/// Colours, unless `NO_COLOR` is set and not empty.
fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn once(mut view: View, mut looker: Looker, apart: Duration) -> anyhow::Result<Exit> {
    view.hear(News::Seen(Box::new(looker.look()?)));
    thread::sleep(apart);
    view.hear(News::Seen(Box::new(looker.look()?)));
    let mut text = String::new();
    for number in 0..view.names().len() {
        view.apply(keys::Action::Ladder(number));
        text += &printed(&view)?;
        text.push('\n');
    }
    output::print(&text)?;
    Ok(Exit::Done)
}

fn printed(view: &View) -> anyhow::Result<String> {
    let picture = view.picture(Clock::system().now().timestamp());
    let columns = if output::stdout_is_terminal() { terminal_size::terminal_size().map(|(w, _)| w.0) } else { None };
    let columns = columns.unwrap_or(PRINTED_COLUMNS);
    let mut terminal = Terminal::new(TestBackend::new(columns, lines_needed(&picture, columns)))?;
    terminal.draw(|frame| draw(frame, &picture, false))?;
    Ok(text_of(terminal.backend().buffer()))
}

/// The lines of a drawing, without the key line at its foot and trailing blanks.
fn text_of(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width.max(1));
    let mut lines: Vec<String> = buffer.content.chunks(width).map(line_of).collect();
    lines.pop();
    format!("{}\n", lines.join("\n").trim_end())
}

fn line_of(cells: &[Cell]) -> String {
    let mut line = String::new();
    let mut covered = 0;
    for cell in cells {
        // A character two columns wide leaves a blank cell behind it.
        if covered == 0 {
            line.push_str(cell.symbol());
            covered = Span::raw(cell.symbol()).width();
        }
        covered = covered.saturating_sub(1);
    }
    line.trim_end().to_owned()
}

/// A message to the main thread.
enum UiEvent {
    Key(KeyEvent),
    /// The terminal was resized.
    Resized,
    News(News),
    /// Fatal error.
    Broken(anyhow::Error),
    /// A signal arrived.
    Stop,
}

fn live(mut view: View, config: &Config, ladders: &[&LadderConfig], beside: &dyn Fn() -> Beside) -> anyhow::Result<End> {
    let (tell, events) = mpsc::channel();
    let (send, commands) = mpsc::channel();
    // Before anything is drawn, so that a signal always finds someone to restore the terminal.
    await_signals(tell.clone())?;
    let mut screen = Screen::enter().context("cannot take over the terminal")?;
    let ladders = ladders.iter().map(|ladder| (*ladder).clone()).collect();
    let looking = look_on(config.clone(), ladders, view.every(), commands, tell.clone());
    read_keys(tell);
    let outcome = show(&mut view, &mut screen, &events, &send, beside);
    // The terminal first: what follows may take a moment.
    drop(screen);
    drop((send, events));
    leave(&looking);
    outcome
}

fn show(
    view: &mut View,
    screen: &mut Screen,
    events: &Receiver<UiEvent>,
    send: &Sender<Command>,
    beside: &dyn Fn() -> Beside,
) -> anyhow::Result<End> {
    let (clock, colours) = (Clock::system(), colours());
    loop {
        let Beside { caption, is_over } = beside();
        if is_over {
            return Ok(End::Over);
        }
        let picture = Picture { caption, ..view.picture(clock.now().timestamp()) };
        screen.terminal().draw(|frame| draw(frame, &picture, colours)).context("drawing")?;
        match events.recv_timeout(TICK) {
            Ok(UiEvent::Key(key)) => match keys::action(key, view.overlay()).map(|action| view.apply(action)) {
                Some(Effect::Quit) => return Ok(End::Key),
                Some(Effect::Send(command)) => send.send(command).map_err(|_| anyhow!("the observing thread has ended"))?,
                Some(Effect::Nothing) | None => {}
            },
            Ok(UiEvent::News(news)) => view.hear(news),
            Ok(UiEvent::Resized) | Err(RecvTimeoutError::Timeout) => {}
            Ok(UiEvent::Broken(error)) => return Err(error),
            Ok(UiEvent::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(End::Signal),
        }
    }
}

/// Connects on the observing thread: until then, and whenever the cluster is slow, the picture
/// stays.
fn look_on(
    config: Config,
    ladders: Vec<LadderConfig>,
    every: Duration,
    commands: Receiver<Command>,
    tell: Sender<UiEvent>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let watched = BreakOnPanic(tell.clone());
        match Looker::connect(&config, &ladders.iter().collect::<Vec<_>>()) {
            Ok(looker) => looker.keep_looking(every, &commands, |news| tell.send(UiEvent::News(news)).is_ok()),
            Err(error) => drop(tell.send(UiEvent::Broken(error))),
        }
        drop(watched);
    })
}

/// If the observing thread panics, the picture ends; the panic hook has logged the message.
struct BreakOnPanic(Sender<UiEvent>);

impl Drop for BreakOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(UiEvent::Broken(anyhow!("observing the cluster has ended by a bug in kladder")));
        }
    }
}

/// Ends with the process: nothing wakes a thread that waits for keys.
fn read_keys(tell: Sender<UiEvent>) {
    thread::spawn(move || {
        loop {
            let event = match event::read() {
                Ok(Event::Key(key)) => UiEvent::Key(key),
                Ok(Event::Resize(..)) => UiEvent::Resized,
                Ok(_) => continue,
                Err(error) => UiEvent::Broken(anyhow!(error).context("reading keys")),
            };
            let is_over = matches!(event, UiEvent::Broken(_));
            if tell.send(event).is_err() || is_over {
                return;
            }
        }
    });
}

/// SIGTERM, SIGINT from elsewhere, and the hang-up of the terminal.
fn await_signals(tell: Sender<UiEvent>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let (mut terminate, mut interrupt, mut hang_up) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
    drop(entered);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        let _ = tell.send(UiEvent::Stop);
    });
    Ok(())
}

/// Waits for a running observation, so that its clients are closed in order, but not for long: the cluster may not answer.
fn leave(looking: &JoinHandle<()>) {
    let clock = Clock::system();
    let deadline = clock.now().later(LEAVE_WITHIN);
    while !looking.is_finished() && clock.now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_on_the_command_line_names_the_keys_that_help_on_the_screen_names() {
        for (key, what) in draw::KEYS {
            assert!(AFTER_HELP.contains(&format!("  {key:<12} {what}")), "{key}");
        }
    }

    #[test]
    fn printed_lines_have_no_gaps_behind_wide_characters() {
        let mut buffer = Buffer::empty(ratatui::layout::Rect::new(0, 0, 12, 2));
        buffer.set_string(0, 0, "by 安娜@ops", ratatui::style::Style::new());
        assert_eq!(text_of(&buffer), "by 安娜@ops\n");
    }

    #[test]
    fn looking_too_often_is_refused() {
        assert_eq!(interval("200ms"), Ok(Duration::from_millis(200)));
        assert!(interval("100ms").is_err() && interval("soon").is_err());
    }
}
