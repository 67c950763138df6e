//! A record's place in a trace: its `traceparent` header (W3C Trace Context), or without one, a context derived from its idempotency
//! key, so that all hops of a record are in one trace.

/// The parent span of a record's hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never all zeros.
    pub trace_id: [u8; 16],
    /// The parent span; never all zeros.
    pub span_id: [u8; 8],
    /// Whether the trace is sampled.
    pub sampled: bool,
}

impl TraceContext {
    /// Parses a `traceparent`: `00-{32 hex digits}-{16}-{2}`, in lower case. A later version may append more; `ff` is invalid
    /// (<https://www.w3.org/TR/trace-context/#traceparent-header>).
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?;
        let mut fields = text.split('-');
        let version: [u8; 1] = hex(fields.next()?)?;
        let (trace_id, span_id): ([u8; 16], [u8; 8]) = (hex(fields.next()?)?, hex(fields.next()?)?);
        let flags: [u8; 1] = hex(fields.next()?)?;
        let is_sound =
            version != [0xff] && trace_id != [0; 16] && span_id != [0; 8] && (version != [0] || fields.next().is_none());
        is_sound.then_some(Self { trace_id, span_id, sampled: flags[0] & 1 == 1 })
    }

    /// For a record without one: derived from its idempotency key alone, so that all workers compute the same. The parent span does
    /// not exist; it only groups the others.
    #[must_use]
    pub fn of_record(id: &str) -> Self {
        // FNV-1a, 128 bits (https://www.rfc-editor.org/rfc/rfc9923): the same in every build, unlike the standard library's hash.
        let hash = |bytes: &[u8]| {
            bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
                (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
            })
        };
        let trace = hash(id.as_bytes());
        // The lower half of a second hash.
        #[expect(clippy::cast_possible_truncation, reason = "only the lower half is used")]
        let span = hash(&trace.to_be_bytes()) as u64;
        Self { trace_id: trace.max(1).to_be_bytes(), span_id: span.max(1).to_be_bytes(), sampled: true }
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_recommendation_says() {
        let read = TraceContext::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert_eq!((read.trace_id[0], read.trace_id[15], read.span_id[7], read.sampled), (0x0a, 0x9c, 0x31, true));
        assert!(!TraceContext::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").unwrap().sampled);
        assert!(TraceContext::parse(b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later").is_some());
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(TraceContext::parse(b"00-\xff"), None);
    }

    #[test]
    fn a_record_without_one_is_always_in_the_same_trace() {
        let (one, other) = (TraceContext::of_record("l/orders/0/1/2"), TraceContext::of_record("l/orders/0/2/2"));
        assert_eq!(one, TraceContext::of_record("l/orders/0/1/2"));
        assert!(one.trace_id != other.trace_id && one.span_id != other.span_id);
        // The test vector of FNV-1a 128 for the empty text.
        assert_eq!(TraceContext::of_record("").trace_id[..4], [0x6c, 0x62, 0x27, 0x2e]);
    }
}
