//! `kladder top`
//!
//! A thread looks at the cluster, one reads keys, one waits for signals; all tell this one, which alone draws. [`picture`] and
//! [`draw`] are pure, so that what is shown is tested without a cluster and without a terminal.

mod draw;
#[cfg(test)]
mod fixtures;
mod keys;
mod look;
mod observation;
mod picture;
mod screen;
mod view;

use std::io::{self, IsTerminal};
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
use crate::cli::{ConfigArg, chosen_ladders, config_file, stdout};
use crate::config::{Config, LadderConfig};
use crate::core::delay::Delay;
use crate::kafka::clock::Clock;
use draw::{draw, lines_needed};
use look::{Command, Looker, News};
use picture::Picture;
use screen::Screen;
use view::{Effect, View};

/// How often the picture is drawn while nothing happens: the countdowns go on.
const TICK: Duration = Duration::from_millis(250);

/// How long a look that is under way may hold the end up.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// The columns of a picture that is printed.
const PRINTED_COLUMNS: u16 = 100;

/// Keys, and what is not seen.
const AFTER_HELP: &str = "\
Keys:
  Tab, arrows  another ladder
  1 to 9       the ladder of that number
  p            hold the ladder, or resume it; y confirms
  ?            this help, on and off
  q, Esc       end
  Ctrl-C       end, whatever is open

What it shows:
  waiting    records that the group has not done; an estimate (~) by offsets, and transaction markers have offsets too
  next due   when the oldest record of a tier comes back, or since when it is due; of dead letters how many are open
  in, out    records a second over the last ten seconds, by offsets, too
  late       from due to redelivered, since the start of the worker at health.listen: of it alone, and so are the handler
             and the open dead letters

Data that is older than it should be is marked STALE, with its age and the reason.";

/// Watch the ladders live: what waits, when it comes back, who works
///
/// Reads the cluster, and the metrics of the worker at health.listen where one answers. Needs a terminal; for scripts there is
/// kladder status. With `NO_COLOR` set it is drawn without colours.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct TopArgs {
    #[command(flatten)]
    config: ConfigArg,

    /// Only this ladder; may be repeated
    #[arg(long = "ladder", value_name = "NAME")]
    ladders: Vec<String>,

    /// How often to look, from 200ms on
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    every: Duration,

    /// Print one picture of each ladder as text, and end; rates are those between two looks
    #[arg(long)]
    once: bool,
}

/// There is nothing to draw on.
#[derive(Debug, Error)]
#[error("stdout is no terminal: for scripts there is `kladder status`, and `kladder top --once` prints one picture as text")]
pub struct NoTerminal;

fn interval(text: &str) -> Result<Duration, String> {
    let every = text.parse::<Delay>().map_err(|error| error.to_string())?.duration();
    if every < Duration::from_millis(200) { Err("at least 200ms".to_owned()) } else { Ok(every) }
}

pub fn run(args: TopArgs) -> anyhow::Result<Exit> {
    let config = config_file::load(&args.config)?.config;
    let ladders = chosen_ladders(&config, &args.ladders)?;
    let view = View::new(ladders.iter().map(|ladder| ladder.ladder.name().to_owned()).collect(), args.every);
    if args.once {
        return once(view, Looker::connect(&config, &ladders)?, args.every);
    }
    if !io::stdout().is_terminal() {
        return Err(NoTerminal.into());
    }
    live(view, &config, &ladders, &Beside::default)?;
    Ok(Exit::Done)
}

/// What a program has to say in a picture that is part of it, asked anew before each drawing.
#[derive(Default)]
pub(in crate::cli) struct Beside {
    /// A line over the table.
    pub caption: Option<String>,
    /// Whether it is to end.
    pub is_over: bool,
}

/// Why a picture has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum End {
    /// The program that it is part of said so.
    Over,
    /// A key did.
    Key,
    /// A signal did.
    Signal,
}

/// Shows one ladder, looked at so often, until it is over.
pub(in crate::cli) fn show_one(
    config: &Config,
    ladder: &LadderConfig,
    every: Duration,
    beside: &dyn Fn() -> Beside,
) -> anyhow::Result<End> {
    live(View::new(vec![ladder.ladder.name().to_owned()], every), config, &[ladder], beside)
}

/// `NO_COLOR` is set, and not empty.
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
    stdout::print(&text)?;
    Ok(Exit::Done)
}

fn printed(view: &View) -> anyhow::Result<String> {
    let picture = view.picture(Clock::system().now().timestamp());
    let columns = if io::stdout().is_terminal() { terminal_size::terminal_size().map(|(w, _)| w.0) } else { None };
    let columns = columns.unwrap_or(PRINTED_COLUMNS);
    let mut terminal = Terminal::new(TestBackend::new(columns, lines_needed(&picture, columns)))?;
    terminal.draw(|frame| draw(frame, &picture, false))?;
    Ok(text_of(terminal.backend().buffer()))
}

/// The lines of a drawing, without the keys at its foot and the blanks at the ends.
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
        // What is two columns wide leaves a blank cell behind.
        if covered == 0 {
            line.push_str(cell.symbol());
            covered = Span::raw(cell.symbol()).width();
        }
        covered = covered.saturating_sub(1);
    }
    line.trim_end().to_owned()
}

/// What this thread is told.
enum Told {
    Key(KeyEvent),
    /// The terminal has another size by now.
    Resized,
    News(News),
    /// It cannot go on, and why.
    Broken(anyhow::Error),
    /// A signal says so.
    Stop,
}

fn live(mut view: View, config: &Config, ladders: &[&LadderConfig], beside: &dyn Fn() -> Beside) -> anyhow::Result<End> {
    let (tell, told) = mpsc::channel();
    let (send, commands) = mpsc::channel();
    // Before anything is drawn, so that no signal finds the terminal taken and nobody who would give it back.
    await_signals(tell.clone())?;
    let mut screen = Screen::enter().context("taking the terminal over")?;
    let ladders = ladders.iter().map(|ladder| (*ladder).clone()).collect();
    let looking = look_on(config.clone(), ladders, view.every(), commands, tell.clone());
    read_keys(tell);
    let outcome = show(&mut view, &mut screen, &told, &send, beside);
    // First the terminal: whatever follows may take a moment.
    drop(screen);
    drop((send, told));
    leave(&looking);
    outcome
}

fn show(
    view: &mut View,
    screen: &mut Screen,
    told: &Receiver<Told>,
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
        match told.recv_timeout(TICK) {
            Ok(Told::Key(key)) => match keys::action(key, view.overlay()).map(|action| view.apply(action)) {
                Some(Effect::Quit) => return Ok(End::Key),
                Some(Effect::Send(command)) => send.send(command).map_err(|_| anyhow!("nobody looks any more"))?,
                Some(Effect::Nothing) | None => {}
            },
            Ok(Told::News(news)) => view.hear(news),
            Ok(Told::Resized) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Told::Broken(error)) => return Err(error),
            Ok(Told::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(End::Signal),
        }
    }
}

/// Connects on its own thread: until then, and whenever the cluster is slow, the picture stays.
fn look_on(
    config: Config,
    ladders: Vec<LadderConfig>,
    every: Duration,
    commands: Receiver<Command>,
    tell: Sender<Told>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let watched = BreakOnPanic(tell.clone());
        match Looker::connect(&config, &ladders.iter().collect::<Vec<_>>()) {
            Ok(looker) => looker.keep_looking(every, &commands, |news| tell.send(Told::News(news)).is_ok()),
            Err(error) => drop(tell.send(Told::Broken(error.into()))),
        }
        drop(watched);
    })
}

/// A picture that nobody renews must not go on; the panic itself has said what it was.
struct BreakOnPanic(Sender<Told>);

impl Drop for BreakOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.send(Told::Broken(anyhow!("looking at the cluster has ended by a defect of kladder")));
        }
    }
}

/// Ends with the process: nothing wakes a thread that waits for keys.
fn read_keys(tell: Sender<Told>) {
    thread::spawn(move || {
        loop {
            let told = match event::read() {
                Ok(Event::Key(key)) => Told::Key(key),
                Ok(Event::Resize(..)) => Told::Resized,
                Ok(_) => continue,
                Err(error) => Told::Broken(anyhow!(error).context("reading keys")),
            };
            let is_over = matches!(told, Told::Broken(_));
            if tell.send(told).is_err() || is_over {
                return;
            }
        }
    });
}

/// SIGTERM, SIGINT from elsewhere, and the end of the terminal itself.
fn await_signals(tell: Sender<Told>) -> anyhow::Result<()> {
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
        let _ = tell.send(Told::Stop);
    });
    Ok(())
}

/// Lets a look that is under way end, so that its clients are closed in good order; a cluster that does not answer is not waited for.
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
