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

/// The most edits that lead from what BuildKit's builder suggests to what was written.
const MAX_EDITS: usize = 2;

/// Finds the option that BuildKit's builder would suggest for `word`, for messages that
/// are compared with its own: the first of those at the least distance.
pub(crate) fn search<'a>(word: &str, options: &[&'a str]) -> Option<&'a str> {
    if word.len() > MAX_INPUT || options.contains(&word) {
        return None;
    }
    let word: Vec<char> = word.chars().collect();
    let near = options.iter().map(|option| {
        let letters: Vec<char> = option.chars().take(MAX_INPUT + MAX_EDITS).collect();
        (plain_distance(&word, &letters), *option)
    });
    near.filter(|(edits, _)| *edits <= MAX_EDITS)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, option)| option)
}

/// Counts insertions, deletions and replacements (Levenshtein).
fn plain_distance(from: &[char], to: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (y, a) in from.iter().enumerate() {
        let mut next = vec![y + 1];
        for (x, b) in to.iter().enumerate() {
            let edits = (row[x] + usize::from(a != b))
                .min(row[x + 1] + 1)
                .min(next[x] + 1);
            next.push(edits);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
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
    fn searches_as_buildkit_does() {
        let options = ["PATH", "DIR_ASSETS", "MY_ARCH", "BUILDPLATFORM"];
        assert_eq!(search("PAHT", &options), Some("PATH"));
        assert_eq!(search("MYARCH", &options), Some("MY_ARCH"));
        assert_eq!(search("BULIDPLATFORM", &options), Some("BUILDPLATFORM"));
        assert_eq!(
            search("PATH", &options),
            None,
            "a name that is there needs none"
        );
        assert_eq!(search("foo", &options), None);
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
