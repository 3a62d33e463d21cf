//! A table of the file, read key by key, so that one pass finds every problem.
//!
//! A wrong value is recorded as a problem and replaced so that reading can continue; settings with such values
//! are discarded. Keys that nobody reads are unknown; those that are read form the effective configuration.

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::describe::KeyShape;
use super::locate::Reading;
use super::units::listed;

/// A table of the file; if it was left out, it has only defaults.
pub(super) struct Section<'a> {
    pub(super) reading: &'a Reading<'a>,
    /// The full key of this table; empty for the file itself.
    pub(super) name: String,
    /// The byte offset of the table, for reporting missing keys.
    offset: usize,
    table: Option<&'a DeTable<'a>>,
    /// Whether the value is not a table, which has been reported.
    mistaken: bool,
    /// Whether the secrets and files named here are read.
    looks: bool,
    known: Vec<&'a str>,
    effective: Map<String, Value>,
}

/// A value of the file and its byte offset.
#[derive(Clone, Copy)]
pub(super) struct SectionEntry<'a> {
    pub(super) value: &'a DeValue<'a>,
    pub(super) offset: usize,
}

impl<'a> Section<'a> {
    /// Reads the whole file with `read`; returns its result and the effective configuration.
    pub(super) fn root<T>(
        reading: &'a Reading<'a>,
        table: &'a DeTable<'a>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> (T, Value) {
        Self::new(reading, String::new(), 0, Some(table)).read(read)
    }

    fn new(reading: &'a Reading<'a>, name: String, offset: usize, table: Option<&'a DeTable<'a>>) -> Self {
        let (known, effective) = (Vec::new(), Map::new());
        Self { reading, name, offset, table, mistaken: false, looks: true, known, effective }
    }

    /// A table inside this one.
    fn within(&self, name: String, offset: usize, table: Option<&'a DeTable<'a>>) -> Self {
        Self { looks: self.looks, ..Self::new(self.reading, name, offset, table) }
    }

    /// Runs `read`; if the file is only read to judge a token, the secrets and files named there are not read.
    pub(super) fn aside<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let looked = self.looks;
        self.looks = looked && self.reading.is_complete();
        let result = read(self);
        self.looks = looked;
        result
    }

    /// From now on, reads secrets and files of this table only if tokens of an issuer with one of these names are judged.
    pub(super) fn look_for(&mut self, names: &[Option<&str>]) {
        self.looks &= names.iter().flatten().any(|name| self.reading.concerns(name));
    }

    /// Whether the secrets and files named here are to be read.
    pub(super) fn looks(&self) -> bool {
        self.looks
    }

    /// Runs `read`, then reports the keys it did not ask for.
    fn read<T>(mut self, read: impl FnOnce(&mut Self) -> T) -> (T, Value) {
        let result = read(&mut self);
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                self.reading.problem(key.span().start, &self.full(name), unknown(name, &self.known));
            }
        }
        (result, Value::Object(self.effective))
    }

    /// Returns the full name of a key of this table.
    pub(super) fn full(&self, key: &str) -> String {
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let key = if key.bytes().all(bare) && !key.is_empty() { key.to_owned() } else { format!("{key:?}") };
        if self.name.is_empty() { key } else { format!("{}.{key}", self.name) }
    }

    /// Records a problem with a key's value, or with its absence.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) {
        let offset = self.find(key).map_or(self.offset, |entry| entry.offset);
        self.reading.problem(offset, &self.full(key), message);
    }

    /// Records that a key without a default is missing.
    pub(super) fn missing(&self, key: &str) {
        if !self.mistaken {
            self.problem(key, "is missing; it has no default");
        }
    }

    /// Records a problem with an element of a key's array.
    pub(super) fn element_problem(&self, key: &str, index: usize, message: impl Into<String>) {
        let element = self.find(key).and_then(|entry| match entry.value {
            DeValue::Array(array) => array.get(index).map(|element| element.span().start),
            _ => None,
        });
        self.reading.problem(
            element.unwrap_or(self.offset),
            &format!("{}[{index}]", self.full(key)),
            message,
        );
    }

    /// Records a problem with a key in one of a list's tables, unless that key already has one.
    pub(super) fn table_problem(&self, tables: &str, index: usize, key: &str, message: impl Into<String>) {
        let Some(DeValue::Array(array)) = self.find(tables).map(|entry| entry.value) else {
            return self.problem(tables, message);
        };
        // Elements that are not tables were reported and skipped.
        let mut read = array.iter().enumerate().filter_map(|(at, element)| match element.get_ref() {
            DeValue::Table(table) => Some((at, table, element.span().start)),
            _ => None,
        });
        if let Some((at, table, offset)) = read.nth(index) {
            let name = format!("{}[{at}]", self.full(tables));
            let table = Section::new(self.reading, name, offset, Some(table));
            if table.is_sound(key) {
                table.problem(key, message);
            }
        }
    }

    /// Records a problem with the table as a whole.
    pub(super) fn own_problem(&self, message: impl Into<String>) {
        self.reading.problem(self.offset, &self.name, message);
    }

    /// Whether no problem has been found with a key.
    pub(super) fn is_sound(&self, key: &str) -> bool {
        !self.mistaken && self.reading.is_sound(&self.full(key))
    }

    /// Whether no problem has been found in this table.
    pub(super) fn is_all_sound(&self) -> bool {
        self.reading.is_sound(&self.name)
    }

    /// The line on which this table begins.
    pub(super) fn line(&self) -> usize {
        self.reading.line(self.offset)
    }

    /// Whether the key is present in the file.
    pub(super) fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// The keys that are present in the file, known or not.
    pub(super) fn written(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.table.into_iter().flatten().map(|(key, _)| -> &'a str { key.get_ref() })
    }

    /// Returns the value of a key and marks the key as known.
    pub(super) fn take(&mut self, key: &'a str) -> Option<SectionEntry<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.find(key)
    }

    /// Returns the value of a key.
    pub(super) fn find(&self, key: &str) -> Option<SectionEntry<'a>> {
        let value = self.table?.get(key)?;
        Some(SectionEntry { value: value.get_ref(), offset: value.span().start })
    }

    /// Records the effective value of a key.
    pub(super) fn show(&mut self, key: &str, value: impl Into<Value>) {
        self.effective.insert(key.to_owned(), value.into());
    }

    /// A table that has only defaults if it is left out.
    pub(super) fn table<T>(&mut self, key: &'a str, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        self.describe_table(key, KeyShape::Table);
        let (table, offset) = match self.take(key) {
            Some(SectionEntry { value: DeValue::Table(table), offset }) => (Some(table), offset),
            Some(entry) => {
                self.problem(key, format!("must be a table, not {}", kind(entry.value)));
                (None, entry.offset)
            }
            None => (None, self.offset),
        };
        let mut section = self.within(self.full(key), offset, table);
        section.mistaken = table.is_none() && self.has(key);
        let (result, effective) = section.read(read);
        self.show(key, effective);
        result
    }

    /// A table that is optional.
    pub(super) fn optional_table<T>(
        &mut self,
        key: &'a str,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> Option<T> {
        if self.take(key).is_some() {
            return Some(self.table(key, read));
        }
        self.show(key, Value::Null);
        None
    }

    /// A table that is an element of an array.
    pub(super) fn element<T>(
        &self,
        name: String,
        offset: usize,
        table: &'a DeTable<'a>,
        read: impl FnOnce(&mut Section<'a>) -> T,
    ) -> T {
        self.within(name, offset, Some(table)).read(read).0
    }

    /// An array of tables, `[[key]]`.
    pub(super) fn tables<T>(&mut self, key: &'a str, mut read: impl FnMut(&mut Section<'a>) -> T) -> Vec<T> {
        self.describe_table(key, KeyShape::Tables);
        let elements = match self.take(key).map(|entry| entry.value) {
            Some(DeValue::Array(array)) => Some(array),
            Some(DeValue::Table(_)) => {
                self.problem(key, format!("is a list of tables: write [[{}]]", self.full(key)));
                None
            }
            Some(other) => {
                self.problem(key, format!("must be tables [[{}]], not {}", self.full(key), kind(other)));
                None
            }
            None => None,
        };
        if self.reading.describes() {
            // Read one element of each list even if the file has none, to describe its keys.
            self.within(format!("{}[0]", self.full(key)), self.offset, None).read(&mut read);
        }
        let (mut results, mut shown) = (Vec::new(), Vec::new());
        for (index, element) in elements.into_iter().flat_map(|array| array.iter()).enumerate() {
            let DeValue::Table(table) = element.get_ref() else {
                self.element_problem(key, index, format!("must be a table, not {}", kind(element.get_ref())));
                continue;
            };
            let name = format!("{}[{index}]", self.full(key));
            let section = self.within(name, element.span().start, Some(table));
            let (result, effective) = section.read(&mut read);
            results.push(result);
            shown.push(effective);
        }
        self.show(key, shown);
        results
    }
}

/// Names the type of a value in plain words.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The message about an unknown key.
fn unknown(key: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(nearest) => format!("unknown key; did you mean {nearest:?}?"),
        None => format!("unknown key (known: {})", known.join(", ")),
    }
}

/// The known word that `word` most likely misspells.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |known: &&&str| strsim::damerau_levenshtein(&word.to_lowercase(), known);
    let nearest = known.iter().min_by_key(distance)?;
    (distance(&nearest) <= 1 + word.len() / 4).then_some(*nearest)
}

/// The message about a word that is not one of the known ones.
pub(super) fn not_one_of(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(nearest) => format!("{word:?} is unknown; did you mean {nearest:?}?"),
        None => format!("{word:?} is unknown (known: {})", listed(known)),
    }
}
