//! ADD extracts archives, which we do not do yet; copying one as a file would be wrong,
//! so it is refused: where the Dockerfile names it plainly before anything runs, else
//! when its step begins.

use std::io::Read;

use crate::context::{self, Context};
use crate::copy::{self, Choice, Selected};
use crate::dockerfile::ast::{Add, Instruction};
use crate::error::Error;
use crate::graph::{self, Plan};

/// How much of a file tells what it is.
const HEAD: u64 = 512;

/// Looks at every ADD that the target needs, as far as its sources are known already.
pub(crate) fn refuse_named(plan: &Plan, context: &Context) -> Result<(), Error> {
    // What cannot be reached was refused when the plan was made.
    let stages = plan.reachable().unwrap_or_default();
    for stage in stages
        .iter()
        .filter_map(|&index| plan.dockerfile.stages.get(index))
    {
        for instruction in &stage.instructions {
            if let Instruction::Add(add) = instruction {
                let location = plan.location(&add.origin);
                refuse_sources(add, context).map_err(|error| error.at(&location))?;
            }
        }
    }
    Ok(())
}

fn refuse_sources(add: &Add, context: &Context) -> Result<(), Error> {
    if add.flags.unpack == Some(false) {
        return Ok(());
    }
    let plain = add
        .sources
        .iter()
        .filter(|source| !source.text.contains('$'));
    for source in plain {
        // A source that is not there fails in its step, with the words for that.
        let selected = copy::select(&source.text, &Choice::default(), context.view());
        refuse(context, &selected.unwrap_or_default())?;
    }
    Ok(())
}

/// Fails if one of the sources is an archive, judged by its content.
pub(crate) fn refuse(context: &Context, selected: &[Selected]) -> Result<(), Error> {
    for one in selected {
        let Some(place) = context.view().content_of(&one.root) else {
            continue;
        };
        let mut head = Vec::new();
        let read = context.open(&place.path)?.take(HEAD).read_to_end(&mut head);
        read.map_err(|source| context::Error::Io {
            doing: "read",
            path: context::as_path(&place.path),
            source,
        })?;
        if is_archive(&head) {
            let name = String::from_utf8_lossy(&one.name).into_owned();
            let what = format!("ADD of the archive {name:?} with extraction");
            return Err(graph::Error::Unsupported(what).into());
        }
    }
    Ok(())
}

/// Gzip, bzip2, xz, Zstandard by their first bytes, a plain tar by its header.
fn is_archive(head: &[u8]) -> bool {
    let compressed: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    compressed.iter().any(|magic| head.starts_with(magic))
        || head.get(257..262) == Some(b"ustar".as_slice())
}
