//! What the steps of a stage are called.

use super::Shared;
use crate::dockerfile::ast::Instruction;
use crate::graph::PlannedStage;

/// Gives what the names of the steps of a stage begin with; several platforms are told
/// apart as the reference builder does: `linux/amd64->arm64 builder`.
fn prefix(session: &Shared, index: usize, stages: usize, planned: &PlannedStage) -> String {
    let name = match stages {
        1 => "stage",
        _ => &planned.name,
    };
    if !session.several {
        return name.to_owned();
    }
    let (runs_on, target) = (session.plan.platform_of(index), &session.platform);
    match runs_on.to_string() == target.to_string() {
        true => format!("{runs_on} {name}"),
        false => {
            let target = target.to_string();
            let short = target.strip_prefix("linux/").unwrap_or(&target);
            format!("{runs_on}->{short} {name}")
        }
    }
}

/// The names of the steps of a stage: `[builder 2/5] RUN make`.
pub(super) struct StepNames {
    prefix: String,
    next: usize,
    total: usize,
    from: String,
}

impl StepNames {
    pub(super) fn new(session: &Shared, index: usize, planned: &PlannedStage) -> Self {
        let stages = &session.plan.dockerfile.stages;
        let steps = stages[index].instructions.iter().filter(|instruction| {
            matches!(
                instruction,
                Instruction::Run(_)
                    | Instruction::Copy(_)
                    | Instruction::Add(_)
                    | Instruction::Workdir(_)
            )
        });
        Self {
            prefix: prefix(session, index, stages.len(), planned),
            next: 2,
            total: steps.count() + 1,
            from: planned.base_name.clone(),
        }
    }

    /// Gives the name of what the stage begins with.
    pub(super) fn first(&self) -> String {
        format!("[{} 1/{}] FROM {}", self.prefix, self.total, self.from)
    }

    /// Gives the name of the next step.
    pub(super) fn next(&mut self, line: &str) -> String {
        let number = self.next;
        self.next += 1;
        // A trigger of the base is one more than was counted.
        let total = self.total.max(number);
        format!("[{} {number}/{total}] {line}", self.prefix)
    }
}
