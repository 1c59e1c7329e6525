//! A complete other program that builds images: it builds a directory, pushes the image
//! and prints its digest.
//!
//! ```text
//! embed CONTEXT STORE REFERENCE
//! ```

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program, not a library"
)]

use std::error::Error;

use ocibuild::{Build, ContextSource, Event, EventSink, Output};

fn main() -> Result<(), Box<dyn Error>> {
    // RUN steps start this program again, so this comes before anything else.
    ocibuild::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [context, store, reference] = arguments.as_slice() else {
        return Err("usage: embed CONTEXT STORE REFERENCE".into());
    };
    let show = |event| {
        if let Event::StepStarted { name, .. } = event {
            eprintln!("{name}");
        }
    };
    let build = Build::new(ContextSource::Directory(context.into()), store)
        .output(Output::Registry(reference.parse()?))
        .events(EventSink::new(show));
    let image = tokio::runtime::Runtime::new()?.block_on(build.run())?;
    println!("{}", image.digest);
    Ok(())
}
