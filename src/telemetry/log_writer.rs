//! Writes log lines to stderr through a bounded queue and its own thread, so that logging never waits for the reader.
//!
//! The reader of the log may disappear (a closed pipe), stop reading (a full pipe) or be out of space (a full disk): the worker
//! continues. Lines that cannot be written or queued are lost; they are counted, and reported in the log once it can be written again.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Size of the queue in bytes: some ten thousand lines.
const ROOM: usize = 4 << 20;

/// Pause before a write that would have blocked is retried: stderr may have been set to non-blocking by a process that
/// shares it.
const AGAIN: Duration = Duration::from_millis(20);

static STDERR: OnceLock<Arc<LogWriter>> = OnceLock::new();

/// The queue of log lines.
pub struct LogWriter {
    queue: Mutex<Queue>,
    changed: Condvar,
    lost: AtomicU64,
    room: usize,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A line has been taken from the queue and is not written yet.
    is_writing: bool,
}

/// The writer to stderr, started on the first call.
///
/// If its thread cannot be created, nothing is written and all lines count as lost.
pub fn to_stderr() -> &'static LogWriter {
    #[expect(clippy::disallowed_methods, reason = "this is what all others write by")]
    STDERR.get_or_init(|| LogWriter::start(ROOM, std::io::stderr()))
}

/// The writer to stderr, if started: then nothing else may write there, since it would block.
#[must_use]
pub fn begun() -> Option<&'static LogWriter> {
    STDERR.get().map(AsRef::as_ref)
}

/// Number of lines lost since the process started.
#[must_use]
pub fn lost() -> u64 {
    begun().map_or(0, LogWriter::lost)
}

/// Waits until all logged lines are written, but at most this long: there may be no reader.
pub fn flush(within: Duration) {
    if let Some(writer) = begun() {
        writer.flush(within);
    }
}

impl LogWriter {
    /// Starts a writer to this sink, with a queue of `room` bytes.
    fn start(room: usize, sink: impl Write + Send + 'static) -> Arc<Self> {
        let writer = Arc::new(Self { queue: Mutex::default(), changed: Condvar::new(), lost: AtomicU64::new(0), room });
        let writing = writer.clone();
        // Without the thread the queue fills up, and further lines are counted.
        let _ = std::thread::Builder::new().name("log".to_owned()).spawn(move || writing.write(sink));
        writer
    }

    /// Queues a line, including its line end; never waits.
    pub fn pass(&self, line: Vec<u8>) {
        let mut queue = self.queue();
        if queue.bytes + line.len() > self.room {
            drop(queue);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line);
        drop(queue);
        self.changed.notify_all();
    }

    /// Number of lost lines.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, but at most this long; returns whether it is.
    pub fn flush(&self, within: Duration) -> bool {
        let is_left = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let waited = self.changed.wait_timeout_while(self.queue(), within, is_left).unwrap_or_else(PoisonError::into_inner);
        !waited.1.timed_out()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut sink: impl Write) {
        let mut told = 0;
        loop {
            let mut queue = self.queue();
            queue.is_writing = false;
            self.changed.notify_all();
            let mut queue =
                self.changed.wait_while(queue, |queue| queue.lines.is_empty()).unwrap_or_else(PoisonError::into_inner);
            let Some(line) = queue.lines.pop_front() else { continue };
            queue.bytes -= line.len();
            queue.is_writing = true;
            drop(queue);
            if written(&mut sink, &line).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let lost = self.lost();
            if lost > told {
                tracing::warn!(lines = lost - told, "log lines were lost before this one, since they could not be written");
                told = lost;
            }
        }
    }
}

/// Like `write_all`, but gives up if a write would block.
fn written(sink: &mut impl Write, mut line: &[u8]) -> std::io::Result<()> {
    while !line.is_empty() {
        match sink.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => line = &line[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Answers each write as configured.
    struct Sink {
        answers: mpsc::Receiver<Result<usize, ErrorKind>>,
        seen: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let answer = self.answers.recv().map_err(|_| ErrorKind::BrokenPipe)?;
            let taken = bytes.len().min(answer?);
            let _ = self.seen.send(bytes[..taken].to_vec());
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Scene = (Arc<LogWriter>, mpsc::Sender<Result<usize, ErrorKind>>, mpsc::Receiver<Vec<u8>>);

    fn writer(room: usize) -> Scene {
        let (answer, answers) = mpsc::channel();
        let (seen, all) = mpsc::channel();
        (LogWriter::start(room, Sink { answers, seen }), answer, all)
    }

    #[test]
    fn whoever_logs_is_not_held_up_by_a_reader_who_does_not_read() {
        let (writer, answer, seen) = writer(100);
        // The first write hangs, as on a full pipe.
        for _ in 0..50 {
            writer.pass(vec![b'x'; 10]);
        }
        // One line may have left the queue by now.
        assert!((39..=40).contains(&writer.lost()), "{}", writer.lost());
        assert!(!writer.flush(Duration::from_millis(10)), "flush does not wait for ever");
        // The reader continues.
        for _ in 0..11 {
            let _ = answer.send(Ok(usize::MAX));
        }
        assert!(writer.flush(PATIENCE));
        let lines = seen.try_iter().count() as u64;
        assert_eq!(lines + writer.lost(), 50, "what was not written is counted");
    }

    #[test]
    fn what_cannot_be_written_is_lost_and_counted_and_what_follows_is_written() {
        let (writer, answer, seen) = writer(1_000);
        for kind in [ErrorKind::BrokenPipe, ErrorKind::StorageFull] {
            answer.send(Err(kind)).unwrap();
            writer.pass(b"lost\n".to_vec());
        }
        // In three pieces, with two harmless errors between them.
        for said in [Ok(2), Err(ErrorKind::Interrupted), Ok(1), Err(ErrorKind::WouldBlock), Ok(usize::MAX)] {
            answer.send(said).unwrap();
        }
        writer.pass(b"kept\n".to_vec());
        assert!(writer.flush(PATIENCE));
        assert_eq!(writer.lost(), 2);
        assert_eq!(seen.try_iter().flatten().collect::<Vec<u8>>(), b"kept\n");
        drop(answer);
        writer.pass(b"nobody\n".to_vec());
        assert!(writer.flush(PATIENCE));
        assert_eq!(writer.lost(), 3);
    }
}
