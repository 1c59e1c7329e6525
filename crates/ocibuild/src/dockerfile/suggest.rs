//! "Did you mean": the word of a list that is nearest to what was written.

/// Longer input is never a slip of one of our words, and comparing it would be slow.
const MAX_INPUT: usize = 64;

/// Finds the option nearest to `word` without regard to case.
pub fn nearest<'a>(word: &str, options: &[&'a str]) -> Option<&'a str> {
    if word.is_empty() || word.len() > MAX_INPUT {
        return None;
    }
    let word: Vec<char> = word.to_lowercase().chars().collect();
    let nearest = options.iter().map(|option| {
        let letters: Vec<char> = option.to_lowercase().chars().collect();
        (distance(&word, &letters), *option)
    });
    // One slip for each three letters: with more, short words would all look alike.
    let likely = nearest.filter(|(edits, option)| *edits <= (option.len() / 3).clamp(1, 3));
    likely
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, option)| option)
}

/// Counts the insertions, deletions, replacements and swaps of neighbours that lead
/// from one word to the other.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (y, a) in from.iter().enumerate() {
        let mut next = vec![y + 1];
        for (x, b) in to.iter().enumerate() {
            let mut edits = (row[x] + usize::from(a != b))
                .min(row[x + 1] + 1)
                .min(next[x] + 1);
            if x > 0 && y > 0 && a == &to[x - 1] && &from[y - 1] == b {
                edits = edits.min(above[x - 1] + 1);
            }
            next.push(edits);
        }
        above = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        let table = [
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("ab", "ab", 0),
        ];
        let swaps = [
            ("form", "from", 1),
            ("chwon", "chown", 1),
            ("abcd", "badc", 2),
        ];
        for (from, to, edits) in table.into_iter().chain(swaps) {
            let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
            assert_eq!(distance(&from, &to), edits, "{from:?} {to:?}");
        }
    }

    #[test]
    fn finds_slips_and_nothing_else() {
        let options = ["FROM", "COPY", "WORKDIR"];
        assert_eq!(nearest("form", &options), Some("FROM"));
        assert_eq!(nearest("WORKDR", &options), Some("WORKDIR"));
        assert_eq!(nearest("elephant", &options), None);
        assert_eq!(nearest("body", &options), None);
        assert_eq!(nearest("", &options), None);
    }
}
