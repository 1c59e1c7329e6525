//! Which Dockerfiles make device nodes.

use crate::config::plan_of;

fn makes_devices(instruction: &str) -> bool {
    let text = format!("FROM scratch\n{instruction}\n");
    plan_of(&text, "").unwrap().makes_devices()
}

#[test]
fn makers_of_device_nodes_are_found_wherever_a_command_names_them() {
    for instruction in [
        "RUN mknod /dev/x c 1 3",
        "RUN cd /d && /bin/mknod x c 1 3",
        "RUN [\"/usr/bin/mknod\", \"/x\", \"c\", \"1\", \"3\"]",
        "RUN <<E\nset -e\ndebootstrap sid /root\nE",
        "COPY <<E /make.sh\nmknod x c 1 3\nE",
    ] {
        assert!(makes_devices(instruction), "{instruction}");
    }
    for instruction in ["RUN echo mknods my_mknod", "ENV A=mknod", "COPY mknod /"] {
        assert!(!makes_devices(instruction), "{instruction}");
    }
}
