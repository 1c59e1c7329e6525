//! The *restricted* profile of Kubernetes' Pod Security Standards, which holds all of
//! *baseline*: <https://kubernetes.io/docs/concepts/security/pod-security-standards/>.

use serde_json::{Value, json};

/// What a volume may be.
const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Kernel parameters that touch nothing but the pod.
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: &[&str] = &[
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

/// Says what in the specification of a pod the profile forbids.
pub(crate) fn violations(pod: &Value) -> Vec<String> {
    let mut found = Found(Vec::new());
    found.pod(pod);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(&pod[list]) {
            found.container(container, &pod["securityContext"]);
        }
    }
    if items(&pod["containers"]).is_empty() {
        found.add("the pod", "has no container");
    }
    found.0
}

struct Found(Vec<String>);

impl Found {
    fn add(&mut self, place: &str, what: &str) {
        self.0.push(format!("{place}: {what}"));
    }

    fn pod(&mut self, pod: &Value) {
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            if !absent_or(&pod[key], false) {
                self.add("the pod", key);
            }
        }
        for volume in items(&pod["volumes"]) {
            let kinds = volume.as_object().unwrap().keys();
            for kind in kinds.filter(|kind| *kind != "name" && !VOLUMES.contains(&kind.as_str())) {
                self.add("a volume", kind);
            }
        }
        for sysctl in items(&pod["securityContext"]["sysctls"]) {
            let name = sysctl["name"].as_str().unwrap_or_default();
            if !SYSCTLS.contains(&name) {
                self.add("a sysctl", name);
            }
        }
        self.context("the pod", &pod["securityContext"]);
    }

    /// What holds for the context of a pod as for that of a container.
    fn context(&mut self, place: &str, context: &Value) {
        if context["runAsUser"] == 0 {
            self.add(place, "runAsUser is 0");
        }
        if !absent_or(&context["windowsOptions"]["hostProcess"], false) {
            self.add(place, "hostProcess");
        }
        let labels = &context["seLinuxOptions"];
        let label = labels["type"].as_str().unwrap_or_default();
        if !SELINUX_TYPES.contains(&label)
            || !absent_or(&labels["user"], "")
            || !absent_or(&labels["role"], "")
        {
            self.add(place, "seLinuxOptions");
        }
        for profile in ["seccompProfile", "appArmorProfile"] {
            let kind = &context[profile]["type"];
            if !kind.is_null() && kind != "RuntimeDefault" && kind != "Localhost" {
                self.add(place, profile);
            }
        }
    }

    fn container(&mut self, container: &Value, of_pod: &Value) {
        let place = container["name"].as_str().unwrap_or("a container");
        let context = &container["securityContext"];
        self.context(place, context);
        if !absent_or(&context["privileged"], false) {
            self.add(place, "privileged");
        }
        if context["allowPrivilegeEscalation"] != false {
            self.add(place, "allowPrivilegeEscalation is not false");
        }
        if !absent_or(&context["procMount"], "Default") {
            self.add(place, "procMount");
        }
        let own = &context["runAsNonRoot"];
        if own != true && !(own.is_null() && of_pod["runAsNonRoot"] == true) {
            self.add(place, "runAsNonRoot is not true");
        }
        if context["seccompProfile"]["type"].is_null() && of_pod["seccompProfile"]["type"].is_null()
        {
            self.add(place, "no seccompProfile");
        }
        self.capabilities(place, &context["capabilities"]);
        for port in items(&container["ports"]) {
            if !absent_or(&port["hostPort"], 0) {
                self.add(place, "hostPort");
            }
        }
        self.probes(place, container);
    }

    fn capabilities(&mut self, place: &str, capabilities: &Value) {
        if !items(&capabilities["drop"]).contains(&json!("ALL")) {
            self.add(place, "not all capabilities are dropped");
        }
        for added in items(&capabilities["add"]) {
            if added != "NET_BIND_SERVICE" {
                self.add(place, "a capability is added");
            }
        }
    }

    /// The node's kubelet must not be sent to other hosts.
    fn probes(&mut self, place: &str, container: &Value) {
        let hooks = &container["lifecycle"];
        let asked =
            ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| &container[probe]);
        for probe in asked
            .into_iter()
            .chain([&hooks["postStart"], &hooks["preStop"]])
        {
            for kind in ["httpGet", "tcpSocket"] {
                if !absent_or(&probe[kind]["host"], "") {
                    self.add(place, "a probe of another host");
                }
            }
        }
    }
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

fn absent_or(value: &Value, allowed: impl Into<Value>) -> bool {
    value.is_null() || *value == allowed.into()
}

#[test]
fn each_forbidden_thing_is_found() {
    let good = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "c",
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    assert_eq!(violations(&good), Vec::<String>::new());
    let container = "/containers/0/securityContext";
    for (place, key, value) in [
        ("", "hostNetwork", json!(true)),
        ("", "hostPID", json!(true)),
        ("", "hostIPC", json!(true)),
        (
            "",
            "volumes",
            json!([{"name": "v", "hostPath": {"path": "/"}}]),
        ),
        ("", "volumes", json!([{"name": "v", "nfs": {}}])),
        ("", "initContainers", json!([{"name": "i"}])),
        ("", "containers", json!([])),
        ("/securityContext", "runAsNonRoot", json!(false)),
        ("/securityContext", "runAsUser", json!(0)),
        (
            "/securityContext",
            "seccompProfile",
            json!({"type": "Unconfined"}),
        ),
        ("/securityContext", "seccompProfile", json!(null)),
        (
            "/securityContext",
            "appArmorProfile",
            json!({"type": "Unconfined"}),
        ),
        (
            "/securityContext",
            "seLinuxOptions",
            json!({"type": "spc_t"}),
        ),
        (
            "/securityContext",
            "seLinuxOptions",
            json!({"user": "system_u"}),
        ),
        (
            "/securityContext",
            "sysctls",
            json!([{"name": "kernel.msgmax", "value": "1"}]),
        ),
        (
            "/securityContext",
            "windowsOptions",
            json!({"hostProcess": true}),
        ),
        (
            "/containers/0",
            "ports",
            json!([{"containerPort": 80, "hostPort": 80}]),
        ),
        (
            "/containers/0",
            "livenessProbe",
            json!({"httpGet": {"host": "10.0.0.1"}}),
        ),
        (
            "/containers/0",
            "lifecycle",
            json!({"preStop": {"tcpSocket": {"host": "10.0.0.1"}}}),
        ),
        (container, "privileged", json!(true)),
        (container, "allowPrivilegeEscalation", json!(null)),
        (container, "capabilities", json!({})),
        (
            container,
            "capabilities",
            json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        ),
        (container, "procMount", json!("Unmasked")),
        (container, "runAsNonRoot", json!(false)),
        (container, "runAsUser", json!(0)),
        (container, "seccompProfile", json!({"type": "Unconfined"})),
    ] {
        let mut pod = good.clone();
        pod.pointer_mut(place).unwrap()[key] = value.clone();
        assert!(!violations(&pod).is_empty(), "{place} {key}: {value}");
    }
}
