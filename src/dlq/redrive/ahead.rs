//! Prefetches letters on a separate thread: while one transaction commits, the records of the next are read.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::config::KafkaConfig;
use crate::core::dead_letter::LetterKey;
use crate::kafka::consumer::ConsumerRecord;
use crate::kafka::error::ClientError;
use crate::kafka::fetch::Fetcher;
use crate::kafka::partition::TopicPartition;

/// Batch limits: number of letters, and approximate number of bytes; a few batches are buffered.
const MOST_LETTERS: usize = 1_000;
const MOST_BYTES: usize = 1_000_000;
const WAITING: usize = 3;

/// A letter and its record; `None` if the record no longer exists.
pub(super) type Fetched = (LetterKey, Option<ConsumerRecord>);

/// Reads letters in order.
#[derive(Default)]
pub(super) struct Ahead {
    receiver: Option<Receiver<Result<Vec<Fetched>, ClientError>>>,
    have: VecDeque<Fetched>,
    left: usize,
}

impl Ahead {
    /// Begins to read these letters, which must be ordered by partition and offset. Letters with given content
    /// (`is_brought`) are not read.
    ///
    /// # Errors
    /// The client or the thread cannot be created.
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
                // The receiver gets the error.
                let _ = sender.send(Err(error));
            }
        };
        let started = std::thread::Builder::new().name("letters".to_owned()).spawn(read);
        started.map_err(|error| ClientError::text("reading letters", error.to_string()))?;
        Ok(Self { receiver: Some(receiver), have: VecDeque::new(), left })
    }

    /// Number of letters not taken yet.
    pub fn left(&self) -> usize {
        self.left
    }

    /// The next letters, up to these numbers of letters and bytes (the last one may exceed them); fewer if more are not read yet, none if
    /// nothing arrives in time.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub fn take(&mut self, most: usize, most_bytes: usize, within: Duration) -> Result<Vec<Fetched>, ClientError> {
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
        let mut bytes = 0;
        let fits = |(_, record): &&Fetched| {
            let has_room = bytes < most_bytes.max(1);
            bytes += record.as_ref().map_or(0, size);
            has_room
        };
        let count = self.have.iter().take(most).take_while(fits).count();
        self.left -= count;
        Ok(self.have.drain(..count).collect())
    }
}

fn size(record: &ConsumerRecord) -> usize {
    record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len)
}

/// Reads until all are read, or the receiver is gone.
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
                // A letter whose offset was skipped no longer exists.
                while let Some(gone) = wanted.next_if(|letter| letter.offset < record.offset()) {
                    out.push((gone, None));
                }
                if let Some(letter) = wanted.next_if(|letter| letter.offset == record.offset()) {
                    bytes += size(&record);
                    // A recreated topic has other records at these offsets.
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
