//! Letters are read ahead of being sent, on a thread of its own: while one transaction commits, the records of the next are fetched.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::dead_letter::LetterKey;
use crate::kafka::consumer::Record;
use crate::kafka::error::ClientError;
use crate::kafka::fetch::Fetcher;
use crate::kafka::partition::TopicPartition;

/// So many letters, or about so many bytes, are read at a time; a few of these wait.
const MOST_LETTERS: usize = 1_000;
const MOST_BYTES: usize = 1_000_000;
const WAITING: usize = 3;

/// A letter and its record; `None` where that is gone.
pub(super) type Fetched = (LetterKey, Option<Record>);

/// Reads letters in their order.
#[derive(Default)]
pub(super) struct Ahead {
    receiver: Option<Receiver<Result<Vec<Fetched>, ClientError>>>,
    have: VecDeque<Fetched>,
    left: usize,
}

impl Ahead {
    /// Begins to read these, which must be in the order of partitions and offsets. What `is_brought` along is not read.
    ///
    /// # Errors
    /// When no client can be made, or no thread.
    pub fn start(
        kafka: &KafkaConfig,
        topic: &str,
        letters: Vec<LetterKey>,
        is_brought: impl Fn(&LetterKey) -> bool,
    ) -> Result<Self, ClientError> {
        let left = letters.len();
        if letters.iter().all(&is_brought) {
            return Ok(Self { receiver: None, have: letters.into_iter().map(|letter| (letter, None)).collect(), left });
        }
        let mut fetcher = Fetcher::new(kafka)?;
        let topic = topic.to_owned();
        let (sender, receiver) = sync_channel(WAITING);
        let read = move || {
            if let Err(error) = read(&mut fetcher, &topic, &letters, &sender) {
                // Whoever waits for letters hears of it.
                let _ = sender.send(Err(error));
            }
        };
        let started = std::thread::Builder::new().name("letters".to_owned()).spawn(read);
        started.map_err(|error| ClientError::text("reading letters", error.to_string()))?;
        Ok(Self { receiver: Some(receiver), have: VecDeque::new(), left })
    }

    /// How many have not been taken.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The next ones, at most so many; fewer where more have not been read yet, and none where nothing comes for so long.
    ///
    /// # Errors
    /// When the topic cannot be read.
    pub fn take(&mut self, most: usize, within: Duration) -> Result<Vec<Fetched>, ClientError> {
        if self.have.is_empty()
            && let Some(receiver) = &self.receiver
        {
            match receiver.recv_timeout(within) {
                Ok(read) => self.have.extend(read?),
                Err(RecvTimeoutError::Timeout) => return Ok(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ClientError::text("reading letters", "it ended before the last of them"));
                }
            }
        }
        while self.have.len() < most
            && let Some(Ok(read)) = self.receiver.as_ref().map(Receiver::try_recv)
        {
            self.have.extend(read?);
        }
        let count = most.min(self.have.len());
        self.left -= count;
        Ok(self.have.drain(..count).collect())
    }
}

/// Until all are read, or nobody takes them any more.
fn read(
    fetcher: &mut Fetcher,
    topic: &str,
    letters: &[LetterKey],
    sender: &SyncSender<Result<Vec<Fetched>, ClientError>>,
) -> Result<(), ClientError> {
    for run in letters.chunk_by(|a, b| a.partition == b.partition) {
        let tp = TopicPartition { topic: topic.into(), partition: run[0].partition };
        for chunk in run.chunks(MOST_LETTERS) {
            let offsets: Vec<i64> = chunk.iter().map(|letter| letter.offset).collect();
            let mut wanted = chunk.iter().copied().peekable();
            let (mut out, mut bytes, mut is_over) = (Vec::with_capacity(chunk.len()), 0, false);
            fetcher.fetch(&tp, &offsets, |record| {
                // What was passed over is gone.
                while let Some(gone) = wanted.next_if(|letter| letter.offset < record.offset()) {
                    out.push((gone, None));
                }
                if let Some(letter) = wanted.next_if(|letter| letter.offset == record.offset()) {
                    bytes += record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len);
                    // A topic that was made anew has other records at these places.
                    out.push((letter, Some(record).filter(|record| record.timestamp() == letter.appended)));
                }
                if bytes > MOST_BYTES {
                    bytes = 0;
                    is_over |= sender.send(Ok(std::mem::take(&mut out))).is_err();
                }
            })?;
            out.extend(wanted.map(|gone| (gone, None)));
            if is_over || sender.send(Ok(out)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
