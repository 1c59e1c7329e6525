//! The Helm chart of the service: what it makes of its own values, of Darwin's, and with
//! everything switched on. Helm renders it; no cluster is needed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod helm;
mod restricted;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use helm::{Outcome, Rendered, helm, rendered, values_file, workspace};
use restricted::violations;

const NOTHING: &str = "{}";

/// The chart with its own values, with Darwin's, and with everything.
fn all() -> Option<[(&'static str, Rendered); 3]> {
    Some([
        ("defaults", rendered(NOTHING)?),
        ("Darwin", rendered(&values_file("darwin-values.yaml"))?),
        (
            "everything",
            rendered(&values_file("everything-values.yaml"))?,
        ),
    ])
}

#[test]
fn lint_finds_nothing() {
    const WARNING: i64 = 2;
    for (case, chart) in all().into_iter().flatten() {
        assert_eq!(chart.lint["errors"], json!([]), "{case}");
        for message in chart.lint["messages"].as_array().unwrap() {
            let severity = message["severity"].as_i64().unwrap();
            assert!(severity < WARNING, "{case}: {message}");
        }
    }
}

#[test]
fn pods_keep_to_the_restricted_profile() {
    for (case, chart) in all().into_iter().flatten() {
        assert_eq!(violations(chart.pod()), Vec::<String>::new(), "{case}");
        // What the profile leaves open.
        assert_eq!(chart.pod()["automountServiceAccountToken"], false, "{case}");
        let context = &chart.container()["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true, "{case}");
        let user = chart.pod()["securityContext"]["runAsUser"].as_u64();
        assert_eq!(user, Some(65532), "{case}: the user of the image");
    }
}

#[test]
fn darwins_names_and_places_stay() {
    let Some(chart) = rendered(&values_file("darwin-values.yaml")) else {
        return;
    };
    let service = chart.only("Service");
    assert_eq!(service["metadata"]["name"], "darwin-artifact-builder");
    assert_eq!(service["spec"]["type"], "ClusterIP");
    assert_eq!(service["spec"]["ports"][0]["port"], 8000);
    let labels = &chart.only("Deployment")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/component"], "artifact-builder");
    assert_eq!(labels["component-name"], "darwin-artifact-builder");
    for (name, value) in service["spec"]["selector"].as_object().unwrap() {
        assert_eq!(labels[name], *value, "the service finds its pods");
    }
    let container = chart.container();
    assert_eq!(container["image"], "localhost:5000/artifact-builder:latest");
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["startupProbe"]["httpGet"]["path"], "/healthcheck");
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    assert_eq!(chart.variable("MYSQL_HOST"), Some("darwin-mysql"));
    assert_eq!(
        chart.variable("APP_LAYER_URL"),
        Some("http://localhost/artifact-builder")
    );
    assert!(chart.find("Ingress", "").is_none());
}

#[test]
fn what_darwin_needed_for_docker_is_left_out_and_said() {
    let Some(chart) = rendered(&values_file("darwin-values.yaml")) else {
        return;
    };
    let text = chart.only("Deployment").to_string();
    assert!(
        !text.contains("docker") && !text.contains("\"privileged\":true"),
        "{text}"
    );
    for said in [
        "securityContext (privileged, runAsUser) is not applied",
        "docker-socket",
        "persistence.mountPath",
    ] {
        assert!(chart.notes.contains(said), "{said}: {}", chart.notes);
    }
    let quiet = rendered(NOTHING).unwrap();
    assert!(!quiet.notes.contains("securityContext") && !quiet.notes.contains("is left out"));
}

#[test]
fn the_registry_of_the_node_has_an_alias() {
    let alias = |values: &str| {
        let chart = rendered(values)?;
        Some(
            chart
                .variable("OCIBUILD_REGISTRY_ALIAS")
                .unwrap_or_default()
                .to_owned(),
        )
    };
    for (values, expected) in [
        (
            "env: {LOCAL_REGISTRY: '127.0.0.1:49153'}",
            "127.0.0.1:49153=kind-registry:5000",
        ),
        (
            "env: {LOCAL_REGISTRY: 'http://localhost:5000/'}",
            "localhost:5000=kind-registry:5000",
        ),
        ("env: {LOCAL_REGISTRY: 'registry.example.org'}", ""),
        ("env: {LOCAL_REGISTRY: '127.0.0.1.example.org:5000'}", ""),
        ("{localRegistryEndpoint: ''}", ""),
        ("env: {OCIBUILD_REGISTRY_ALIAS: a=b}", "a=b"),
    ] {
        let Some(found) = alias(values) else { return };
        assert_eq!(found, expected, "{values}");
    }
}

#[test]
fn secrets_stand_in_the_secret_alone() {
    for (case, chart) in all().into_iter().flatten() {
        for document in chart
            .documents
            .iter()
            .filter(|document| document["kind"] != "Secret")
        {
            assert!(
                !document.to_string().contains("canary"),
                "{case}: {document}"
            );
        }
        assert!(!chart.notes.contains("canary"), "{case}");
    }
    let Some(chart) = rendered(&values_file("darwin-values.yaml")) else {
        return;
    };
    let secret = &chart.only("Secret")["stringData"];
    let expected = json!({
        "AWS_ACCESS_KEY_ID": "tset",
        "AWS_SECRET_ACCESS_KEY": "canary-aws",
        "GITHUB_TOKEN": "canary-github",
        "MYSQL_PASSWORD": "canary-mysql",
    });
    assert_eq!(*secret, expected);
    assert_eq!(
        chart.container()["envFrom"],
        json!([{"secretRef": {"name": "darwin-artifact-builder"}}])
    );
}

#[test]
fn a_secret_of_the_user_wins() {
    let Some(chart) = rendered("existingSecret: mine") else {
        return;
    };
    let sources = chart.container()["envFrom"].as_array().unwrap();
    assert_eq!(sources.last().unwrap()["secretRef"]["name"], "mine");
    // What stands in the pod would win over it.
    assert_eq!(chart.variable("MYSQL_PASSWORD"), None);
}

/// The table of variables is that of the service: a test of the service compares the two.
fn known_variables() -> Vec<(String, bool)> {
    let file = workspace().join("docs/configuration.md");
    let text = fs::read_to_string(file).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (name, rest) = row.split_once('`').unwrap();
        let secret = rest.trim_end_matches([' ', '|']).ends_with("Secret.");
        (name.to_owned(), secret)
    })
    .collect()
}

#[test]
fn the_service_knows_every_variable_of_the_chart() {
    let known: BTreeSet<String> = known_variables()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(known.contains("OCIBUILD_DATA_DIR"), "{known:?}");
    for (case, chart) in all().into_iter().flatten() {
        let variables = chart.container()["env"].as_array().unwrap().iter();
        let in_pod = variables.map(|variable| variable["name"].as_str().unwrap().to_owned());
        let keys = |map: &Value| map.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let names = in_pod
            .chain(keys(&chart.only("Secret")["stringData"]))
            .chain(keys(&chart.defaults["env"]))
            .chain(keys(&chart.defaults["secretEnv"]));
        for name in names {
            assert!(known.contains(&name), "{case}: {name}");
        }
    }
}

#[test]
fn every_secret_of_the_service_becomes_one_of_the_chart() {
    let secrets = known_variables().into_iter().filter(|(_, secret)| *secret);
    let names: Vec<String> = secrets.map(|(name, _)| name).collect();
    assert!(names.len() >= 5, "{names:?}");
    let list: Vec<Value> = names
        .iter()
        .map(|name| json!({"name": name, "value": "canary"}))
        .collect();
    let Some(chart) = rendered(&json!({"extraEnvVars": list}).to_string()) else {
        return;
    };
    for name in names {
        assert_eq!(chart.variable(&name), None, "{name} stands in the pod");
        assert_eq!(
            chart.only("Secret")["stringData"][&name],
            "canary",
            "{name}"
        );
    }
}

#[test]
fn pods_end_after_their_builds_had_their_time() {
    for (case, chart) in all().into_iter().flatten() {
        let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
        let builds = seconds(chart.variable("OCIBUILD_SHUTDOWN_GRACE").unwrap());
        let pod = chart.pod()["terminationGracePeriodSeconds"]
            .as_u64()
            .unwrap();
        assert!(
            pod > builds,
            "{case}: {pod} s for the pod, {builds} s for its builds"
        );
    }
}

#[test]
fn a_new_version_replaces_pods_one_by_one_unless_they_share_what_one_alone_may_have() {
    let strategy =
        |values: &str| Some(rendered(values)?.only("Deployment")["spec"]["strategy"].clone());
    let rolling =
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    let recreate = json!({"type": "Recreate"});
    for (values, expected) in [
        (NOTHING, &rolling),
        ("dataVolume: {type: claim}", &rolling),
        ("dataVolume: {type: ephemeral}", &rolling),
        ("env: {MYSQL_HOST: ''}", &rolling),
        (
            "{dataVolume: {type: claim}, env: {MYSQL_HOST: ''}}",
            &recreate,
        ),
        (
            "dataVolume: {type: claim, accessMode: ReadWriteOnce}",
            &recreate,
        ),
        ("persistence: {enabled: true}", &recreate),
        (
            "persistence: {enabled: true, accessMode: ReadWriteMany}",
            &rolling,
        ),
    ] {
        let Some(found) = strategy(values) else {
            return;
        };
        assert_eq!(found, *expected, "{values}");
    }
}

#[test]
fn volumes_are_of_each_pod_or_shared() {
    let data = |values: &str| {
        let chart = rendered(values)?;
        let volumes = chart.pod()["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == "data");
        Some((
            volume.unwrap().clone(),
            chart.find("PersistentVolumeClaim", "-data").cloned(),
        ))
    };
    let Some((own, None)) = data(NOTHING) else {
        return;
    };
    assert_eq!(own["emptyDir"]["sizeLimit"], "20Gi");
    let (ephemeral, _) = data("dataVolume: {type: ephemeral, storageClassName: fast}").unwrap();
    let claim = &ephemeral["ephemeral"]["volumeClaimTemplate"]["spec"];
    assert_eq!(claim["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(claim["storageClassName"], "fast");
    let (shared, made) = data("dataVolume: {type: claim, size: 50Gi}").unwrap();
    let made = made.unwrap();
    assert_eq!(
        shared["persistentVolumeClaim"]["claimName"],
        made["metadata"]["name"]
    );
    assert_eq!(made["spec"]["accessModes"], json!(["ReadWriteMany"]));
    assert_eq!(made["spec"]["resources"]["requests"]["storage"], "50Gi");
    let (yours, None) = data("dataVolume: {type: claim, existingClaim: yours}").unwrap() else {
        panic!("a claim is made beside that of the user")
    };
    assert_eq!(yours["persistentVolumeClaim"]["claimName"], "yours");
}

#[test]
fn logs_lie_where_they_can_be_written() {
    let mount = |values: &str| {
        let chart = rendered(values)?;
        let mounts = chart.container()["volumeMounts"].as_array().unwrap();
        let found = mounts.iter().find(|mount| mount["name"] == "logs");
        Some(found.map_or(Value::Null, |mount| mount["mountPath"].clone()))
    };
    for (values, expected) in [
        (NOTHING, json!(null)),
        (
            "persistence: {enabled: true}",
            json!("/var/lib/ocibuild/logs"),
        ),
        ("env: {ENV: prod}", json!("/var/www/artifact-builder/logs")),
        ("env: {ENV: prod, LOG_FILE_ROOT_PROD: logs}", json!(null)),
    ] {
        let Some(found) = mount(values) else { return };
        assert_eq!(found, expected, "{values}");
    }
}

#[test]
fn the_ingress_strips_its_prefix() {
    let Some(chart) = rendered("ingress: {enabled: true}") else {
        return;
    };
    let ingress = chart.only("Ingress");
    let rewrite = &ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/rewrite-target"];
    assert_eq!(rewrite, "/$2");
    let rule = &ingress["spec"]["rules"][0];
    assert_eq!(rule["host"], "localhost");
    let path = &rule["http"]["paths"][0];
    assert_eq!(path["path"], "/artifact-builder(/|$)(.*)");
    assert_eq!(
        path["backend"]["service"]["name"],
        chart.only("Service")["metadata"]["name"]
    );
}

#[test]
fn the_network_policy_leads_to_what_builds_need_and_not_to_metadata() {
    const METADATA: &str = "169.254.169.254/32";
    for (case, chart) in all().into_iter().flatten() {
        let policy = &chart.only("NetworkPolicy")["spec"];
        assert_eq!(
            policy["policyTypes"],
            json!(["Ingress", "Egress"]),
            "{case}"
        );
        let mut ports = BTreeSet::new();
        for rule in policy["egress"].as_array().unwrap() {
            let peers = rule["to"].as_array();
            let peers =
                peers.unwrap_or_else(|| panic!("{case}: a rule without `to` leads everywhere"));
            for block in peers
                .iter()
                .filter(|peer| peer["ipBlock"]["cidr"] == "0.0.0.0/0")
            {
                let except = block["ipBlock"]["except"].as_array().unwrap();
                assert!(except.contains(&json!(METADATA)), "{case}: {block}");
            }
            ports.extend(
                rule["ports"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|port| port["port"].as_u64().unwrap()),
            );
        }
        let database = chart.variable("MYSQL_PORT").unwrap().parse().unwrap();
        for port in [53, 80, 443, 5000, database] {
            assert!(ports.contains(&port), "{case}: {port} of {ports:?}");
        }
        let from = &policy["ingress"][0];
        assert_eq!(from["ports"][0]["port"], "http", "{case}");
        assert_eq!(from["from"][0], json!({"podSelector": {}}), "{case}");
    }
    let Some(chart) = rendered("{networkPolicy: {egress: {deny: [10.0.0.0/8]}}}") else {
        return;
    };
    let policy = chart.only("NetworkPolicy").to_string();
    assert!(policy.contains("10.0.0.0/8") && policy.contains(METADATA));
}

#[test]
fn replicas_are_counted_once() {
    let Some(chart) = rendered(&values_file("everything-values.yaml")) else {
        return;
    };
    let spec = &chart.only("Deployment")["spec"];
    assert!(
        spec["replicas"].is_null(),
        "the autoscaler's number would be undone at each upgrade"
    );
    let scaler = &chart.only("HorizontalPodAutoscaler")["spec"];
    assert_eq!(
        (&scaler["minReplicas"], &scaler["maxReplicas"]),
        (&json!(2), &json!(6))
    );
    let budget = &chart.only("PodDisruptionBudget")["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    assert_eq!(budget["selector"], spec["selector"]);
    // Numbers keep their digits.
    assert_eq!(chart.variable("OCIBUILD_MAX_LOG"), Some("67108864"));
}

#[test]
fn every_value_is_in_the_readme() {
    let chart = workspace().join("crates/server/deploy/helm/artifact-builder");
    let readme = fs::read_to_string(chart.join("README.md")).unwrap();
    let Some(rendered) = rendered(NOTHING) else {
        return;
    };
    for name in rendered.defaults.as_object().unwrap().keys() {
        let mentioned = ["`", "."]
            .iter()
            .any(|end| readme.contains(&format!("`{name}{end}")));
        assert!(mentioned, "{name}");
    }
}

#[test]
fn values_that_cannot_work_are_refused_with_the_reason() {
    for (values, reason) in [
        ("replicas: 2", "replicas"),
        ("user: {uid: 0}", "uid"),
        ("seccompProfile: {type: Unconfined}", "seccompProfile"),
        ("seccompProfile: {type: Localhost}", "localhostProfile"),
        ("healthcheck: {path: healthcheck}", "healthcheck"),
        ("image: {digest: 'sha256:short'}", "digest"),
        ("dataVolume: {type: hostPath}", "dataVolume"),
        (
            "{replicaCount: 2, env: {MYSQL_HOST: ''}}",
            "several replicas need one task table: set env.MYSQL_HOST",
        ),
        (
            "{replicaCount: 2, persistence: {enabled: true}}",
            "that is not ReadWriteMany",
        ),
        (
            "env: {OCIBUILD_DATA_DIR: /elsewhere}",
            "OCIBUILD_DATA_DIR is set by this chart: use the value dataVolume",
        ),
        (
            "env: {BUILD_ARTIFACTS_ROOT: /scratch}",
            "BUILD_ARTIFACTS_ROOT is /scratch, which cannot be written",
        ),
        (
            "volumes: [{name: root, hostPath: {path: /}}]",
            "the volume root is of the kind hostPath",
        ),
        (
            "volumes: [{name: share, nfs: {server: s, path: /}}]",
            "the volume share is of the kind nfs",
        ),
    ] {
        match helm(values) {
            None => return,
            Some(Outcome::Refused(said)) => assert!(said.contains(reason), "{values}: {said}"),
            Some(Outcome::Rendered(_)) => panic!("taken: {values}"),
        }
    }
}
