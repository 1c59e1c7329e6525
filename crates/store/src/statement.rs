//! A statement and its values, before either database sees it.
//!
//! The text is put together from parts of the program only; everything else is a value, which
//! the database gets apart from the text.

use chrono::{DateTime, Utc};
use sqlx::{Arguments, AssertSqlSafe, Encode, Type};

/// A statement with its values, in the order of its question marks.
///
/// Words in braces, such as `{now}`, stand for what the databases write differently: see
/// [`Database::WORDS`](crate::database::Database::WORDS).
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    text: String,
    values: Vec<Value>,
}

/// A value of a statement.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// A text, or NULL.
    Text(Option<String>),
    /// A number, or NULL.
    Number(Option<i64>),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A moment, written as the database writes it.
    Time(DateTime<Utc>),
}

/// Begins a statement.
pub(crate) fn sql(text: &'static str) -> Statement {
    Statement {
        text: text.to_owned(),
        values: Vec::new(),
    }
}

impl Statement {
    /// Goes on with another part.
    pub(crate) fn and(mut self, text: &'static str) -> Self {
        self.text.push(' ');
        self.text.push_str(text);
        self
    }

    /// Adds the value of the next question mark.
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Tells whether it is without values.
    pub(crate) fn is_plain(&self) -> bool {
        self.values.is_empty()
    }

    /// Gives the text and the values as one database wants them.
    pub(crate) fn written<DB>(
        self,
        words: &[(&'static str, &'static str)],
        time: impl Fn(DateTime<Utc>) -> String,
    ) -> Result<(AssertSqlSafe<String>, DB::Arguments), sqlx::Error>
    where
        DB: sqlx::Database,
        Option<String>: for<'t> Encode<'t, DB> + Type<DB>,
        Option<i64>: for<'t> Encode<'t, DB> + Type<DB>,
        Vec<u8>: for<'t> Encode<'t, DB> + Type<DB>,
    {
        let mut text = self.text;
        if text.contains('{') {
            for (word, meaning) in words {
                text = text.replace(word, meaning);
            }
        }
        let mut arguments = DB::Arguments::default();
        for value in self.values {
            match value {
                Value::Text(value) => arguments.add(value),
                Value::Number(value) => arguments.add(value),
                Value::Bytes(value) => arguments.add(value),
                Value::Time(value) => arguments.add(Some(time(value))),
            }
            .map_err(sqlx::Error::Encode)?;
        }
        Ok((AssertSqlSafe(text), arguments))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<&str>> for Value {
    fn from(text: Option<&str>) -> Self {
        Self::Text(text.map(str::to_owned))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(Some(number.into()))
    }
}

/// No size or count comes near the end of what a column can hold.
impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(Some(i64::try_from(number).unwrap_or(i64::MAX)))
    }
}

impl From<Option<u64>> for Value {
    fn from(number: Option<u64>) -> Self {
        number.map_or(Self::Number(None), Self::from)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_owned())
    }
}

impl From<DateTime<Utc>> for Value {
    fn from(time: DateTime<Utc>) -> Self {
        Self::Time(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_never_holds_a_value() {
        let hostile = "'; DROP TABLE ocibuild_task; -- {now}";
        let statement = sql("SELECT {now} WHERE a = ?")
            .bind(hostile)
            .and("AND b = ?")
            .bind(7_u32);
        let words = [("{now}", "NOW(6)")];
        let (text, arguments) = statement
            .written::<sqlx::Sqlite>(&words, |time| time.to_string())
            .unwrap();
        assert_eq!(text.0, "SELECT NOW(6) WHERE a = ? AND b = ?");
        assert_eq!(arguments.len(), 2);
    }
}
