//! "Did you mean": the word of a list that is nearest to what was written.

/// The most edits after which a word is still taken for a slip.
const MAX_DISTANCE: usize = 3;

/// Longer input is never a slip of one of our words, and comparing it would be slow.
const MAX_INPUT: usize = 64;

/// Finds the option nearest to `word` without regard to case.
pub(super) fn nearest<'a>(word: &str, options: &[&'a str]) -> Option<&'a str> {
    if word.is_empty() || word.len() > MAX_INPUT {
        return None;
    }
    let word = word.to_lowercase();
    options
        .iter()
        .map(|option| (distance(&word, &option.to_lowercase()), *option))
        .filter(|(edits, option)| *edits <= MAX_DISTANCE && *edits < option.len())
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, option)| option)
}

/// Counts the insertions, deletions and replacements that lead from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, a) in from.chars().enumerate() {
        let mut diagonal = line;
        let mut left = line + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&to) {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = *cell;
            left = replaced.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn finds_slips_and_nothing_else() {
        let options = ["FROM", "COPY", "WORKDIR"];
        assert_eq!(nearest("form", &options), Some("FROM"));
        assert_eq!(nearest("WORKDR", &options), Some("WORKDIR"));
        assert_eq!(nearest("elephant", &options), None);
        assert_eq!(nearest("", &options), None);
    }
}
