//! Every case in every environment: what is expected, and the image that root makes of it.
//!
//! `testdata/sandbox/pending` has the cases that do not work everywhere yet, a line each:
//! environment, beginning of the names of cases with a `*`, and a part of what is said. A line
//! whose case works is to be taken out, and the test says so.

use std::collections::BTreeMap;
use std::fs;

use crate::case::{Case, Outcome, testdata};
use crate::environment::{CANARY, Environment};
use crate::expectation::why;
use crate::place::Place;

#[test]
fn privileged_e1_root_on_a_machine() {
    judge(Environment::E1);
}

#[test]
fn privileged_e2_a_user_with_a_range() {
    judge(Environment::E2);
}

#[test]
fn privileged_e3_a_user_without() {
    judge(Environment::E3);
}

#[test]
fn privileged_e4_a_container() {
    judge(Environment::E4);
}

#[test]
fn privileged_e5_a_container_without_a_filter() {
    judge(Environment::E5);
}

#[test]
fn privileged_e6_a_restricted_pod() {
    judge(Environment::E6);
}

#[test]
fn privileged_e7_a_restricted_pod_without_a_filter() {
    judge(Environment::E7);
}

fn judge(environment: Environment) {
    let Some(place) = Place::get() else { return };
    let pending = Pending::read(environment);
    let mut wrong = Vec::new();
    for case in Case::all() {
        let problems = problems(&place, environment, &case);
        match (pending.of(&case.name), problems.is_empty()) {
            (None, true) => {}
            (None, false) => wrong.push(format!("{}:\n  {}", case.name, problems.join("\n  "))),
            (Some(line), true) => wrong.push(format!(
                "{} works: take {line:?} out of `pending`",
                case.name
            )),
            (Some(line), false) => {
                let all = problems.join("\n  ");
                if !all.contains(&line.said) {
                    wrong.push(format!(
                        "{} fails otherwise than {line:?}:\n  {all}",
                        case.name
                    ));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{environment:?}: {}\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn problems(place: &Place, environment: Environment, case: &Case) -> Vec<String> {
    let expectation = case.expectation();
    let reference = place.reference(case);
    if environment == Environment::E1 {
        return [expectation.problems(&reference), leaks(case, &reference)].concat();
    }
    let outcome = case.outcome(place, environment);
    let mut problems = [expectation.problems(&outcome), leaks(case, &outcome)].concat();
    match (&reference.image, &outcome.image) {
        (Ok(reference), Ok(image)) => {
            let differences = reference.differences(image, &expectation.varying);
            if !differences.is_empty() {
                let shown: Vec<_> = differences.iter().take(20).cloned().collect();
                problems.push(format!(
                    "{} lines differ:\n    {}",
                    differences.len(),
                    shown.join("\n    ")
                ));
            }
        }
        (Err(said), Ok(_)) if !expectation.is_failure() => {
            problems.push(format!("root fails: {}", why(said)));
        }
        _ => {}
    }
    problems
}

/// Where secrets of the operator are that nobody gave to a command.
fn leaks(case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut found = Vec::new();
    if outcome.said.contains(CANARY) {
        found.push(format!("a secret is in the log: {}", outcome.said));
    }
    // Searching all that apt installs would take longer than installing it.
    let image = outcome
        .image
        .as_ref()
        .ok()
        .filter(|_| case.name.starts_with("hostile-"));
    if image.is_some_and(|image| image.contains(CANARY)) {
        found.push("a secret is in the image".to_owned());
    }
    found
}

/// What does not work yet.
struct Pending(BTreeMap<String, Known>);

#[derive(Debug, Clone)]
struct Known {
    /// A part of what is wrong.
    said: String,
}

impl Pending {
    fn read(environment: Environment) -> Self {
        let file = testdata().join("pending");
        let text = fs::read_to_string(file).unwrap();
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let rows = lines.map(|line| {
            let mut fields = line.splitn(3, ' ').map(str::to_owned);
            let mut field = || {
                fields
                    .next()
                    .unwrap_or_else(|| panic!("not understood: {line}"))
            };
            (field(), field(), field())
        });
        let ours = rows.filter(|(name, ..)| *name == environment.name());
        Self(ours.map(|(_, case, said)| (case, Known { said })).collect())
    }

    /// The line that names a case, or the beginning of its name.
    fn of(&self, case: &str) -> Option<&Known> {
        let names = |name: &str| match name.strip_suffix('*') {
            Some(prefix) => case.starts_with(prefix),
            None => case == name,
        };
        self.0
            .iter()
            .find(|(name, _)| names(name))
            .map(|(_, known)| known)
    }
}
