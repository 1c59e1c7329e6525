//! `$name`, `${name}` and `${name` with a modifier.

use super::Lexer;
use crate::dockerfile::words::{MAX_DEPTH, WordError, glob};

impl Lexer<'_> {
    pub(super) fn read_dollar(&mut self) -> Result<String, WordError> {
        self.next();
        if !self.next_if('{') {
            let name = self.read_name();
            return Ok(match name.is_empty() {
                true => "$".to_owned(),
                false => self
                    .value(&name)
                    .unwrap_or_else(|| self.unset_text(&format!("${name}"))),
            });
        }
        match self.peek() {
            None => return Err(WordError::UnclosedSubstitution),
            Some('{' | '}' | ':') => return Err(WordError::BadSubstitution),
            Some(_) => {}
        }
        if self.depth == MAX_DEPTH {
            return Err(WordError::TooDeep);
        }
        self.depth += 1;
        let start = self.position - "${".len();
        let name = self.read_name();
        let value = self.read_modifier(&name)?;
        self.depth -= 1;
        let written = self.input.get(start..self.position).unwrap_or_default();
        Ok(value.unwrap_or_else(|| self.unset_text(written)))
    }

    /// Gives what stands for a variable without a value.
    fn unset_text(&self, written: &str) -> String {
        if self.rules.keeps_unset {
            written.to_owned()
        } else {
            String::new()
        }
    }

    /// Reads a name, a number or one special parameter; gives nothing for other characters.
    fn read_name(&mut self) -> String {
        let start = self.position;
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                while self.peek().is_some_and(|c| c.is_ascii_digit()) {
                    self.next();
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.next();
            }
            _ => {
                while self.peek().is_some_and(is_name) {
                    self.next();
                }
            }
        }
        self.input
            .get(start..self.position)
            .unwrap_or_default()
            .to_owned()
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.lookup)(name);
        let names = if value.is_some() {
            &mut self.used
        } else {
            &mut self.unset
        };
        names.insert(name.to_owned());
        value
    }

    /// Gives the value for a pattern to work on, or nothing where the text is to stay.
    fn value_or_empty(&mut self, name: &str) -> Option<String> {
        let value = self.value(name);
        value.or_else(|| (!self.rules.keeps_unset).then(String::new))
    }

    /// Reads what follows the name up to and with `}`; gives nothing for a variable
    /// that is to stay as written or has no value.
    fn read_modifier(&mut self, name: &str) -> Result<Option<String>, WordError> {
        match self.next() {
            None => Err(WordError::UnclosedSubstitution),
            Some('}') => Ok(self.value(name)),
            Some(':') => match self.next() {
                Some(sign @ ('-' | '+' | '?')) => self.read_alternative(name, sign, true),
                Some(other) => Err(WordError::UnsupportedModifier(format!(":{other}"))),
                None => Err(WordError::UnclosedSubstitution),
            },
            Some(sign @ ('-' | '+' | '?')) => self.read_alternative(name, sign, false),
            Some(sign @ ('#' | '%')) => self.read_trim(name, sign),
            Some('/') => self.read_replace(name),
            Some(other) => Err(WordError::UnsupportedModifier(other.to_string())),
        }
    }

    /// Reads a part of a substitution; patterns keep their escape characters.
    fn read_part(&mut self, stop: char, keeps_escapes: bool) -> Result<String, WordError> {
        let before = std::mem::replace(&mut self.rules.keeps_escapes, keeps_escapes);
        let (text, _) = self.read_until(Some(stop))?;
        self.rules.keeps_escapes = before;
        Ok(text)
    }

    fn read_alternative(
        &mut self,
        name: &str,
        sign: char,
        empty_is_unset: bool,
    ) -> Result<Option<String>, WordError> {
        let word = self.read_part('}', false)?;
        let value = self.value(name);
        if value.is_none() && self.rules.keeps_unset {
            return Ok(None);
        }
        let reason = if value.is_some() {
            "must not be empty"
        } else {
            "must be set"
        };
        let value = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (sign, value) {
            ('-', value) => Ok(Some(value.unwrap_or(word))),
            ('+', value) => Ok(Some(value.map(|_| word).unwrap_or_default())),
            (_, Some(value)) => Ok(Some(value)),
            (_, None) => {
                let message = if word.is_empty() {
                    reason.to_owned()
                } else {
                    word
                };
                Err(WordError::Required {
                    name: name.to_owned(),
                    message,
                })
            }
        }
    }

    fn read_trim(&mut self, name: &str, sign: char) -> Result<Option<String>, WordError> {
        let word = self.read_part('}', true)?;
        let (pattern, longest) = match word.strip_prefix(sign) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        let Some(value) = self.value_or_empty(name) else {
            return Ok(None);
        };
        match sign {
            '#' => glob::trim_prefix(&value, pattern, longest).map(Some),
            _ => glob::trim_suffix(&value, pattern, longest).map(Some),
        }
    }

    fn read_replace(&mut self, name: &str) -> Result<Option<String>, WordError> {
        let every = self.next_if('/');
        let pattern = self.read_part('/', true)?;
        let replacement = self.read_part('}', true)?;
        let Some(value) = self.value_or_empty(name) else {
            return Ok(None);
        };
        glob::replace(&value, &pattern, &replacement, every).map(Some)
    }
}
