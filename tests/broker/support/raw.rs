//! Records as stored in Kafka, written and read without loss.
//!
//! rust-rdkafka can neither write a header name that is not UTF-8 nor read one without a panic, so the headers go through
//! librdkafka's C functions. Nothing here is shared with the product.
#![expect(unsafe_code, reason = "headers with arbitrary names exist in librdkafka's C interface only")]

use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, DeliveryResult};
use rdkafka::producer::{BaseProducer, NoCustomPartitioner, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use super::clock::{self, PATIENCE};

/// Headers in order, with duplicates, null values, and names of any bytes (except NUL, which ends a name in C).
pub type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

/// A record as stored in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

impl Record {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<Option<&[u8]>> {
        self.headers.iter().filter(|(n, _)| n == name.as_bytes()).map(|(_, v)| v.as_deref()).collect()
    }

    /// The value of a header that exists exactly once and is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.all(name).as_slice() {
            [Some(value)] => std::str::from_utf8(value).ok(),
            _ => None,
        }
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }
}

/// Writes records, in order within a partition.
pub struct RawProducer {
    producer: BaseProducer<Reports, NoCustomPartitioner>,
    reports: Arc<Mutex<Vec<Result<(), String>>>>,
}

pub struct Reports(Arc<Mutex<Vec<Result<(), String>>>>);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, _: usize) {
        let report = result.as_ref().map(|_| ()).map_err(|(error, _)| error.to_string());
        self.0.lock().expect("no panic while locked").push(report);
    }
}

impl RawProducer {
    pub fn new(brokers: &str) -> Self {
        Self::with(brokers, &[])
    }

    pub fn with(brokers: &str, properties: &[(&str, &str)]) -> Self {
        let reports: Arc<Mutex<Vec<Result<(), String>>>> = Arc::default();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("linger.ms", "5");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let producer = config.create_with_context(Reports(Arc::clone(&reports))).expect("a producer");
        Self { producer, reports }
    }

    /// Writes them and waits until the broker has acknowledged all.
    pub fn write(&self, topic: &str, records: &[NewRecord]) {
        for record in records {
            self.enqueue(topic, record);
        }
        let deadline = clock::now() + PATIENCE;
        while self.reports.lock().expect("no panic while locked").len() < records.len() {
            self.producer.poll(Duration::from_millis(5));
            assert!(clock::now() < deadline, "the broker did not confirm {} records to {topic}", records.len());
        }
        let reports = std::mem::take(&mut *self.reports.lock().expect("no panic while locked"));
        let failed: Vec<_> = reports.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "the broker refused records to {topic}: {failed:?}");
    }

    pub fn transactions(&self) -> &BaseProducer<Reports, NoCustomPartitioner> {
        &self.producer
    }

    fn enqueue(&self, topic: &str, record: &NewRecord) {
        let topic = CString::new(topic).expect("a topic name");
        let bytes = |bytes: Option<&Vec<u8>>| {
            let (ptr, size) = bytes.map_or((ptr::null(), 0), |b| (b.as_ptr(), b.len()));
            c::rd_kafka_vu_s__bindgen_ty_1 {
                mem: c::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 { ptr: ptr.cast_mut().cast::<c_void>(), size },
            }
        };
        let headers = native_headers(&record.headers);
        let fields = [
            (c::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TOPIC, c::rd_kafka_vu_s__bindgen_ty_1 { cstr: topic.as_ptr() }),
            (c::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION, c::rd_kafka_vu_s__bindgen_ty_1 { i32_: record.partition }),
            (c::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS, c::rd_kafka_vu_s__bindgen_ty_1 { i: c::RD_KAFKA_MSG_F_COPY }),
            (c::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, bytes(record.key.as_ref())),
            (c::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE, bytes(record.value.as_ref())),
            (c::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADERS, c::rd_kafka_vu_s__bindgen_ty_1 { headers }),
        ]
        .map(|(vtype, u)| c::rd_kafka_vu_s { vtype, u });
        // SAFETY: the client lives as long as `self`; key and value are copied by the call, and on success it owns the headers.
        unsafe {
            let error = c::rd_kafka_produceva(self.producer.client().native_ptr(), fields.as_ptr(), fields.len());
            if !error.is_null() {
                let text = CStr::from_ptr(c::rd_kafka_error_string(error)).to_string_lossy().into_owned();
                panic!("cannot write a record: {text}");
            }
        }
    }
}

fn native_headers(headers: &Headers) -> *mut c::rd_kafka_headers_t {
    // SAFETY: the list is made here; names and values are copied into it, with their lengths.
    unsafe {
        let list = c::rd_kafka_headers_new(headers.len());
        for (name, value) in headers {
            let (data, size) = value.as_ref().map_or((ptr::null(), 0), |v| (v.as_ptr(), v.len()));
            let error = c::rd_kafka_header_add(
                list,
                name.as_ptr().cast(),
                isize::try_from(name.len()).expect("a short name"),
                data.cast(),
                isize::try_from(size).expect("a short value"),
            );
            assert_eq!(error, c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "cannot add a header");
        }
        list
    }
}

fn read_headers(message: &BorrowedMessage<'_>) -> Headers {
    let mut headers = Headers::new();
    // SAFETY: the message outlives the call; what the list points at is copied before it ends.
    unsafe {
        let mut list = ptr::null_mut();
        if c::rd_kafka_message_headers(message.ptr(), &raw mut list) != c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return headers;
        }
        for index in 0..c::rd_kafka_header_cnt(list) {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let error = c::rd_kafka_header_get_all(list, index, &raw mut name, &raw mut value, &raw mut size);
            assert_eq!(error, c::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "cannot read a header");
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size).to_vec());
            headers.push((CStr::from_ptr(name).to_bytes().to_vec(), value));
        }
    }
    headers
}

/// All committed records of a topic, from its beginning to its current end, by partition and offset.
pub fn read_topic(brokers: &str, topic: &str) -> Vec<Record> {
    read_with(brokers, topic, "read_committed")
}

/// The same including aborted and uncommitted ones.
pub fn read_with(brokers: &str, topic: &str, isolation: &str) -> Vec<Record> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "the-tests-read-without-a-group")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "20")
        .create()
        .expect("a consumer");
    let partitions = super::broker::partitions_of(&consumer, topic);
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&assignment).expect("an assignment");
    let mut records = Vec::new();
    let mut at_end = vec![false; usize::try_from(partitions).expect("a count")];
    let deadline = clock::now() + PATIENCE;
    while at_end.contains(&false) {
        assert!(clock::now() < deadline, "{topic} could not be read to its end");
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => at_end[usize::try_from(partition).expect("an index")] = true,
            // The client reconnects by itself; the deadline bounds it.
            Some(Err(error)) if connection_lost(&error) => {}
            Some(Err(error)) => panic!("cannot read {topic}: {error}"),
            Some(Ok(message)) => records.push(Record {
                topic: topic.to_owned(),
                partition: message.partition(),
                offset: message.offset(),
                timestamp: message.timestamp().to_millis().unwrap_or(-1),
                key: message.key().map(<[u8]>::to_vec),
                value: message.payload().map(<[u8]>::to_vec),
                headers: read_headers(&message),
            }),
        }
    }
    records.sort_by_key(|r| (r.partition, r.offset));
    records
}

fn connection_lost(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure))
}
