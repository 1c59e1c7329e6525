//! `cargo bench -p ocibuild-benches --bench rooms`: each room of the library by itself; see
//! `rooms` in the library beside this file.

use divan::Bencher;
use divan::counter::BytesCount;
use ocibuild_benches::rooms;

fn main() {
    divan::main();
}

#[divan::bench(args = rooms::ROOMS, sample_size = 1, max_time = 3)]
fn room(bencher: Bencher<'_, '_>, name: &str) {
    let mut room = rooms::room(name, 1);
    match room.bytes {
        Some(bytes) => bencher
            .counter(BytesCount::new(bytes))
            .bench_local(|| room.enter()),
        None => bencher.bench_local(|| room.enter()),
    }
}
