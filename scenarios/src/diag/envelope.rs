//! The TOML envelope of platform and scenario files: typed access to its fields, each error at its place.

use super::{Diag, SourceFile, nearest};
use sim_core::units::clip;
use std::ops::Range;
use toml_edit::{Document, Item, Key, TableLike, Value};

/// A parsed TOML document that remembers where everything stands.
pub(crate) struct Envelope<'s> {
    src: &'s SourceFile,
    document: Document<&'s str>,
}

impl<'s> Envelope<'s> {
    /// Parses the TOML of a file.
    pub(crate) fn parse(src: &'s SourceFile) -> Result<Self, Diag> {
        match Document::parse(src.text()) {
            Ok(document) => Ok(Envelope { src, document }),
            Err(e) => {
                let span = e.span().unwrap_or(0..0);
                let message = e.message();
                let (found, expected) = match message.split_once(", expected ") {
                    Some((found, "nothing")) => (found.to_owned(), "nothing there".to_owned()),
                    Some((found, expected)) => (found.to_owned(), expected.to_owned()),
                    None if message == "duplicate key" => (
                        format!("`{}` a second time", clip(raw(src, &span))),
                        "each key once".to_owned(),
                    ),
                    None if message == "integer number overflowed" => (
                        format!("`{}`", clip(raw(src, &span))),
                        "an integer from -2^63 to 2^63 - 1".to_owned(),
                    ),
                    None if message.contains("recurs") => {
                        ("deeper nesting".to_owned(), "at most 80 levels".to_owned())
                    }
                    None => (message.to_owned(), "TOML".to_owned()),
                };
                Err(src.diag(span, found, expected))
            }
        }
    }

    /// The whole document.
    pub(crate) fn root(&self) -> Section<'_> {
        let name = String::new();
        Section { src: self.src, name, table: self.document.as_table(), span: 0..0 }
    }
}

fn raw<'s>(src: &'s SourceFile, span: &Range<usize>) -> &'s str {
    src.text().get(span.clone()).unwrap_or("")
}

/// A table of the document.
#[derive(Clone)]
pub(crate) struct Section<'a> {
    src: &'a SourceFile,
    /// Dotted name; empty for the document itself.
    name: String,
    table: &'a dyn TableLike,
    span: Range<usize>,
}

/// A key with its value.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    src: &'a SourceFile,
    pub(crate) key: &'a str,
    pub(crate) key_span: Range<usize>,
    item: &'a Item,
    /// Where the value stands.
    pub(crate) span: Range<usize>,
}

/// A text value.
#[derive(Clone)]
pub(crate) struct Text<'a> {
    src: &'a SourceFile,
    pub(crate) value: &'a str,
    pub(crate) span: Range<usize>,
}

impl<'a> Section<'a> {
    fn field_of(&self, key: &'a Key, item: &'a Item) -> Field<'a> {
        let key_span = key.span().unwrap_or_else(|| self.span.clone());
        let span = item.span().unwrap_or_else(|| key_span.clone());
        Field { src: self.src, key: key.get(), key_span, item, span }
    }
    /// All fields, in the order of the file.
    pub(crate) fn fields(&self) -> Vec<Field<'a>> {
        let pairs = self.table.iter().filter_map(|(name, _)| self.table.get_key_value(name));
        pairs.map(|(key, item)| self.field_of(key, item)).collect()
    }
    /// The field of that name.
    pub(crate) fn field(&self, key: &str) -> Option<Field<'a>> {
        let (key, item) = self.table.get_key_value(key)?;
        (!item.is_none()).then(|| self.field_of(key, item))
    }
    /// The field of that name; `example` says what is missing.
    pub(crate) fn required(&self, key: &str, example: &str) -> Result<Field<'a>, Diag> {
        self.field(key).ok_or_else(|| self.missing(key, example))
    }
    /// A key that must be there is not.
    pub(crate) fn missing(&self, key: &str, example: &str) -> Diag {
        let place = if self.name.is_empty() { "file" } else { "table" };
        self.src.diag(self.span.clone(), format!("a {place} without `{key}`"), example)
    }
    /// Refuses keys that are not in the list.
    pub(crate) fn only(&self, allowed: &[&str]) -> Result<(), Diag> {
        match self.fields().iter().find(|f| !allowed.contains(&f.key)) {
            None => Ok(()),
            Some(field) => Err(field.unknown(allowed.iter().copied())),
        }
    }
    /// The table as a whole is not good.
    pub(crate) fn bad(&self, found: &str, expected: &str) -> Diag {
        self.src.diag(self.span.clone(), found, expected)
    }
}

impl<'a> Field<'a> {
    /// The key is not one of `allowed`.
    pub(crate) fn unknown<'c>(&self, allowed: impl Iterator<Item = &'c str> + Clone) -> Diag {
        let expected = match nearest(self.key, allowed.clone()) {
            Some(near) => format!("a known key: did you mean `{near}`?"),
            None => format!("one of the keys {}", allowed.collect::<Vec<_>>().join(", ")),
        };
        let found = format!("unknown key `{}`", clip(self.key));
        self.src.diag(self.key_span.clone(), found, expected)
    }
    /// The key itself is not good.
    pub(crate) fn bad_key(&self, expected: &str) -> Diag {
        self.bad_key_found(&format!("`{}`", clip(self.key)), expected)
    }
    /// Something is wrong with what the key names.
    pub(crate) fn bad_key_found(&self, found: &str, expected: &str) -> Diag {
        self.src.diag(self.key_span.clone(), found, expected)
    }
    /// The value is of another type than `expected`.
    pub(crate) fn wrong(&self, expected: &str) -> Diag {
        self.src.diag(self.span.clone(), describe(self.src, self.item), expected)
    }
    /// The value is of the right type but not good.
    pub(crate) fn bad(&self, found: impl Into<String>, expected: impl Into<String>) -> Diag {
        self.src.diag(self.span.clone(), found, expected)
    }
    /// The value as text.
    pub(crate) fn text(&self, expected: &str) -> Result<Text<'a>, Diag> {
        let value = self.item.as_value().and_then(Value::as_str);
        let value = value.ok_or_else(|| self.wrong(expected))?;
        Ok(Text { src: self.src, value, span: self.span.clone() })
    }
    /// The value as an integer.
    pub(crate) fn integer(&self) -> Option<i64> {
        self.item.as_integer()
    }
    /// The value as true or false.
    pub(crate) fn boolean(&self) -> Option<bool> {
        self.item.as_bool()
    }
    /// The value as a list of text; a text alone is a list of one where `or_one` says so.
    pub(crate) fn texts(&self, or_one: bool, expected: &str) -> Result<Vec<Text<'a>>, Diag> {
        if or_one && self.item.is_str() {
            return Ok(vec![self.text(expected)?]);
        }
        let list = self.item.as_array().ok_or_else(|| self.wrong(expected))?;
        list.iter()
            .map(|value| {
                let span = value.span().unwrap_or_else(|| self.span.clone());
                match value.as_str() {
                    Some(text) => Ok(Text { src: self.src, value: text, span }),
                    None => {
                        let found = describe_value(self.src, value);
                        Err(self.src.diag(span, found, expected))
                    }
                }
            })
            .collect()
    }
    /// The value as a table.
    pub(crate) fn section(&self, expected: &str) -> Result<Section<'a>, Diag> {
        let table = self.item.as_table_like().ok_or_else(|| self.wrong(expected))?;
        Ok(Section { src: self.src, name: self.key.to_owned(), table, span: self.span.clone() })
    }
    /// The value as `[[tables]]`.
    pub(crate) fn sections(&self, expected: &str) -> Result<Vec<Section<'a>>, Diag> {
        let tables = self.item.as_array_of_tables().ok_or_else(|| self.wrong(expected))?;
        let section = |table: &'a toml_edit::Table| {
            let span = table.span().unwrap_or_else(|| self.span.clone());
            Section { src: self.src, name: self.key.to_owned(), table, span }
        };
        Ok(tables.iter().map(section).collect())
    }
    /// The value as the file spells it.
    pub(crate) fn raw(&self) -> &'a str {
        raw(self.src, &self.span)
    }
}

fn describe(src: &SourceFile, item: &Item) -> String {
    match item {
        Item::Value(value) => describe_value(src, value),
        Item::ArrayOfTables(_) => "a list of tables".to_owned(),
        Item::Table(_) | Item::None => "a table".to_owned(),
    }
}

fn describe_value(src: &SourceFile, value: &Value) -> String {
    let name = match value {
        Value::Array(_) => return "a list".to_owned(),
        Value::InlineTable(_) => return "a table".to_owned(),
        Value::String(_) => "text",
        Value::Integer(_) => "integer",
        Value::Float(_) => "float",
        Value::Boolean(_) => "boolean",
        Value::Datetime(_) => "date",
    };
    let shown = value.span().map_or("", |span| raw(src, &span));
    format!("{name} `{}`", clip(shown.trim_matches(['"', '\''])))
}

impl<'a> Text<'a> {
    /// Something is wrong with these bytes of the value. Points into the value where the file spells it without
    /// escapes, at the whole of it otherwise.
    pub(crate) fn bad_at(
        &self,
        inner: Range<usize>,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Diag {
        let span = match self.body() {
            Some((start, _)) => start + inner.start..start + inner.end,
            _ => self.span.clone(),
        };
        self.src.diag(span, found, expected)
    }
    /// The whole value is wrong.
    pub(crate) fn bad(&self, expected: impl Into<String>) -> Diag {
        let found = format!("`{}`", clip(self.value));
        self.src.diag(self.span.clone(), found, expected)
    }
    /// What the file has between the quotes, and where it starts; a first line end after a triple quote is not part
    /// of it. The value is the same text; `None` where escapes make them differ.
    pub(crate) fn body(&self) -> Option<(usize, &'a str)> {
        let raw = raw(self.src, &self.span);
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|q| raw.starts_with(q))?;
        let body = raw.strip_prefix(quote)?.strip_suffix(quote)?;
        if quote.starts_with('"') && body.contains('\\') {
            return None;
        }
        let mut start = self.span.start + quote.len();
        let mut rest = body;
        if quote.len() == 3
            && let Some(cut) = body.strip_prefix("\r\n").or_else(|| body.strip_prefix('\n'))
        {
            start += body.len() - cut.len();
            rest = cut;
        }
        Some((start, rest))
    }
    /// Where the first backslash is, for a value whose [`Text::body`] is refused.
    pub(crate) fn escape(&self) -> Range<usize> {
        match raw(self.src, &self.span).find('\\') {
            Some(at) => self.span.start + at..self.span.start + at + 1,
            None => self.span.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_of_a_text_without_escapes_is_its_value() {
        let spellings = [
            ("\"one\"", Some("one")),
            ("'one'", Some("one")),
            ("\"\"", Some("")),
            ("\"\"\"\n\none\r\ntwo\"\"\"", Some("\none\r\ntwo")),
            ("\"\"\"\r\none\"two\"\"\"\"\"", Some("one\"two\"\"")),
            ("'''one\\n'''", Some("one\\n")),
            ("'one\\'", Some("one\\")),
            ("\"one\\n\"", None),
            ("\"\"\"one\\\n  two\"\"\"", None),
        ];
        for (spelling, want) in spellings {
            let src = SourceFile::unchecked("x", &format!("a = {spelling} # \"\n"));
            let envelope = Envelope::parse(&src).unwrap();
            let text = envelope.root().field("a").unwrap().text("").unwrap();
            let body = text.body();
            assert_eq!(body.map(|(_, body)| body), want, "{spelling:?}");
            if let Some((start, body)) = body {
                assert_eq!(body, text.value, "{spelling:?}");
                assert_eq!(src.text().get(start..start + body.len()), Some(body));
            }
        }
    }
}
