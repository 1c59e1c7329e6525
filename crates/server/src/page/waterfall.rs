//! The steps of a build as bars over time.
//!
//! Geometry is in attributes of SVG: the content security policy allows no inline styles.

use std::time::Duration;

use maud::{Markup, html};
use ocibuild_store::{Step, StepState};

use super::format;

/// The width of all bars together, in the units of the picture.
const WIDTH: f64 = 1000.0;
/// A bar that is shorter could not be seen.
const MIN_WIDTH: f64 = 4.0;

/// Draws the steps; `elapsed` is how long the build has taken so far.
pub(super) fn waterfall(steps: &[Step], elapsed: Duration) -> Markup {
    if steps.is_empty() {
        return html! { p.faint { "No step has begun yet." } };
    }
    let now = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let ends = steps.iter().map(|step| end(step, now));
    let total = ends.max().unwrap_or_default().max(1);
    html! {
        div.scroll {
            table.steps {
                thead { tr {
                    th scope="col" { "State" }
                    th scope="col" { "Step" }
                    th.bars scope="col" { "Time, of " (format::duration(Duration::from_millis(total))) }
                    th.number scope="col" { "Took" }
                    th.number scope="col" { "Layer" }
                } }
                tbody { @for step in steps { (row(step, now, total)) } }
            }
        }
    }
}

fn row(step: &Step, now: u64, total: u64) -> Markup {
    let took = end(step, now).saturating_sub(step.begin_millis);
    let (mark, class) = (mark(step.state), step.state.as_str());
    html! {
        tr {
            td class={ "state " (class) } { span aria-hidden="true" { (mark) } " " (class) }
            td.step {
                @if step.name.is_empty() { "Step " (step.number) } @else { (step.name) }
                @if let Some(error) = &step.error { div.reason { (error) } }
            }
            td.bars { (bar(step, now, total)) }
            td.number { (format::duration(Duration::from_millis(took))) }
            td.number title=[step.layer.as_deref()] {
                @if let Some(bytes) = step.layer_size { (format::size(bytes)) }
            }
        }
    }
}

fn bar(step: &Step, now: u64, total: u64) -> Markup {
    let (x, width) = place(step.begin_millis, end(step, now), total);
    html! {
        svg viewBox={ "0 0 " (WIDTH) " 10" } preserveAspectRatio="none" aria-hidden="true" {
            rect.track width=(WIDTH) height="10" {}
            rect class={ "bar " (step.state.as_str()) } x={ (format!("{x:.1}")) } width={ (format!("{width:.1}")) } height="10" {}
        }
    }
}

/// Gives the left end and the width of a bar, inside the picture.
fn place(begin: u64, end: u64, total: u64) -> (f64, f64) {
    let scale = WIDTH / total as f64;
    let width = end.saturating_sub(begin) as f64 * scale;
    let width = width.clamp(MIN_WIDTH, WIDTH);
    let x = (begin as f64 * scale).clamp(0.0, WIDTH - width);
    (x, width)
}

/// When a step ended, or now; in milliseconds since the build began.
fn end(step: &Step, now: u64) -> u64 {
    match step.millis {
        Some(millis) => step.begin_millis.saturating_add(millis),
        None => now.max(step.begin_millis),
    }
}

fn mark(state: StepState) -> &'static str {
    match state {
        StepState::Running => "▶",
        StepState::Done => "✓",
        StepState::Cached => "↺",
        StepState::Failed => "✗",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stay_inside_the_picture() {
        for (begin, end, total, expected) in [
            (0, 100, 100, (0.0, 1000.0)),
            (50, 75, 100, (500.0, 250.0)),
            (100, 100, 100, (996.0, 4.0)),
            (u64::MAX, u64::MAX, 1, (996.0, 4.0)),
            (5, 2, 10, (500.0, 4.0)),
        ] {
            assert_eq!(place(begin, end, total), expected, "{begin} to {end}");
        }
    }
}
