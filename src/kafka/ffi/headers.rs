//! Header names as bytes, which the safe crate neither reads nor writes.

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use rdkafka::bindings as sys;

use super::{bytes_or_null, slice_or_none};

/// More names than kladder's own indicate a flood.
const MANY_NAMES: usize = 64;

/// Native headers: the exact bytes of a record's headers, including names with zero bytes.
pub struct NativeHeaders(pub(super) NonNull<sys::rd_kafka_headers_t>);

// SAFETY: the list is owned, and librdkafka ties it to no thread.
unsafe impl Send for NativeHeaders {}

impl NativeHeaders {
    /// No headers.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: allocates, room for headers only when the first one comes; librdkafka aborts rather than return null.
        let list = unsafe { sys::rd_kafka_headers_new(0) };
        Self(NonNull::new(list).expect("librdkafka allocates or aborts"))
    }

    /// Appends a header.
    pub fn push(&mut self, name: &[u8], value: Option<&[u8]>) {
        let (value, len) = bytes_or_null(value);
        // SAFETY: copies both; the lengths are those of the slices.
        unsafe {
            sys::rd_kafka_header_add(self.0.as_ptr(), name.as_ptr().cast(), name.len().cast_signed(), value, len.cast_signed());
        }
    }

    /// All headers, in order. A name that contains a zero byte is visible up to it (but copied
    /// completely).
    pub fn iter(&self) -> HeaderIter<'_> {
        HeaderIter { list: self.0.as_ptr(), index: 0, life: PhantomData }
    }

    /// Number of headers.
    #[must_use]
    pub fn len(&self) -> usize {
        // SAFETY: a live list.
        unsafe { sys::rd_kafka_header_cnt(self.0.as_ptr()) }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps only the first `most` headers whose names match the condition.
    pub fn keep_first(&mut self, most: usize, condition: impl Fn(&[u8]) -> bool) {
        let mut kept = Self::new();
        for (name, value) in self.iter().filter(|(name, _)| condition(name)).take(most) {
            kept.push(name, value);
        }
        *self = kept;
    }

    /// Removes every header whose name matches the condition.
    pub fn remove_if(&mut self, condition: impl Fn(&[u8]) -> bool) {
        let names: Vec<CString> =
            self.iter().filter(|(name, _)| condition(name)).filter_map(|(name, _)| CString::new(name).ok()).collect();
        self.remove(names);
    }

    /// librdkafka searches all headers for each name. If there are many names, all other headers are copied instead, each name up to its
    /// first zero byte.
    fn remove(&mut self, mut names: Vec<CString>) {
        names.sort_unstable();
        names.dedup();
        if names.len() > MANY_NAMES {
            let mut left = Self::new();
            for (name, value) in &*self {
                if names.binary_search_by(|gone| gone.as_bytes().cmp(name)).is_err() {
                    left.push(name, value);
                }
            }
            *self = left;
            return;
        }
        for name in names {
            // SAFETY: compares the name and frees what matches.
            unsafe { sys::rd_kafka_header_remove(self.0.as_ptr(), name.as_ptr()) };
        }
    }

    /// Makes these the only headers whose names match the condition, each once. Existing identical headers stay in place, which is
    /// cheaper than recreating them; missing ones are appended.
    pub fn replace(&mut self, condition: impl Fn(&[u8]) -> bool, wanted: &[(&str, String)]) {
        let mut missing = vec![true; wanted.len()];
        let mut unwanted = Vec::new();
        for (name, value) in self.iter().filter(|(name, _)| condition(name)) {
            let place = wanted.iter().position(|(known, _)| known.as_bytes() == name);
            match place.filter(|at| missing[*at] && value == Some(wanted[*at].1.as_bytes())) {
                Some(at) => missing[at] = false,
                None => unwanted.extend(CString::new(name)),
            }
        }
        for (missing, (name, _)) in missing.iter_mut().zip(wanted) {
            // It is removed by its name, in all occurrences.
            *missing |= unwanted.iter().any(|unwanted| unwanted.as_bytes() == name.as_bytes());
        }
        self.remove(unwanted);
        for (_, (name, value)) in missing.iter().zip(wanted).filter(|(missing, _)| **missing) {
            self.push(name.as_bytes(), Some(value.as_bytes()));
        }
    }
}

impl<'a> IntoIterator for &'a NativeHeaders {
    type Item = (&'a [u8], Option<&'a [u8]>);
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

impl Default for NativeHeaders {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for NativeHeaders {
    fn clone(&self) -> Self {
        // SAFETY: copies a live list.
        let copy = unsafe { sys::rd_kafka_headers_copy(self.0.as_ptr()) };
        Self(NonNull::new(copy).expect("librdkafka allocates or aborts"))
    }
}

impl Drop for NativeHeaders {
    fn drop(&mut self) {
        // SAFETY: owned, and given away only by `into_raw`.
        unsafe { sys::rd_kafka_headers_destroy(self.0.as_ptr()) };
    }
}

/// Iterates over native headers.
#[derive(Clone)]
pub struct HeaderIter<'a> {
    pub(super) list: *const sys::rd_kafka_headers_t,
    pub(super) index: usize,
    pub(super) life: PhantomData<&'a ()>,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.list.is_null() {
            return None;
        }
        let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the list lives for 'a; the call fills the three, or says that there is no such index.
        let found = unsafe { sys::rd_kafka_header_get_all(self.list, self.index, &raw mut name, &raw mut value, &raw mut len) };
        if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        self.index += 1;
        // SAFETY: librdkafka ends names by a zero byte and keeps both as long as the list.
        unsafe { Some((CStr::from_ptr(name).to_bytes(), slice_or_none(value, len))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_bytes_order_duplicates_and_nulls() {
        let mut headers = NativeHeaders::new();
        let all: [(&[u8], Option<&[u8]>); 5] =
            [(b"a", Some(b"1")), (b"\xff\xfe", Some(b"\0")), (b"a", None), (b"kladder-x", Some(b"y")), (b"a", Some(b""))];
        for (name, value) in all {
            headers.push(name, value);
        }
        assert_eq!(headers.clone().iter().collect::<Vec<_>>(), all);
        headers.remove_if(|name| name.starts_with(b"kladder-"));
        let left: Vec<_> = headers.iter().collect();
        assert_eq!(left, [all[0], all[1], all[2], all[4]]);
    }

    #[test]
    fn replaced_headers_are_there_once_each_and_the_others_stay() {
        let is_own = |name: &[u8]| name.starts_with(b"k-");
        let wanted =
            [("k-same", "1".to_owned()), ("k-other", "new".to_owned()), ("k-twice", "2".to_owned()), ("k-new", "3".to_owned())];
        let mut headers = NativeHeaders::new();
        let before: [(&[u8], Option<&[u8]>); 9] = [
            (b"user", Some(b"x")),
            (b"k-same", Some(b"1")),
            (b"k-other", Some(b"old")),
            (b"k-twice", Some(b"2")),
            (b"user", None),
            (b"k-gone", Some(b"9")),
            (b"k-twice", Some(b"2")),
            (b"k-null", None),
            (b"\xff", Some(b"\0")),
        ];
        for (name, value) in before {
            headers.push(name, value);
        }
        headers.replace(is_own, &wanted);
        let mut own: Vec<_> = headers.iter().filter(|(name, _)| is_own(name)).collect();
        own.sort_unstable();
        let after: [(&[u8], Option<&[u8]>); 4] =
            [(b"k-new", Some(b"3")), (b"k-other", Some(b"new")), (b"k-same", Some(b"1")), (b"k-twice", Some(b"2"))];
        assert_eq!(own, after);
        let others: Vec<_> = headers.iter().filter(|(name, _)| !is_own(name)).collect();
        assert_eq!(others, [before[0], before[4], before[8]]);
    }
}
