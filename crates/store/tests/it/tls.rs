//! Connections that are encrypted, to servers that prove who they are.

use std::path::Path;

use ocibuild_store::testing::{Authority, MariaDb, new_task};
use ocibuild_store::{MySqlSettings, MySqlStore, MySqlTls, MySqlTlsMode, TaskStore};
use sqlx::Executor;

use crate::support::{causes, new_database, server};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_as_safe_as_it_is_asked_to_be() {
    let Some(server) = server(MariaDb::start_with_tls()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let ours = server.authority().unwrap();
    let stranger = Authority::make(folder.path()).unwrap().certificate;
    // The server itself refuses this user over a plain connection.
    let mut database = new_database(&server, "safe").await;
    for statement in [
        "CREATE USER safe REQUIRE SSL",
        "GRANT ALL ON safe.* TO safe",
    ] {
        database.execute(statement).await.unwrap();
    }
    let with = |mode, ca: Option<&Path>| MySqlSettings {
        username: "safe".to_owned(),
        tls: MySqlTls {
            mode,
            ca: ca.map(Path::to_owned),
            ..MySqlTls::default()
        },
        ..server.settings("safe")
    };
    use MySqlTlsMode::{Disabled, Preferred, Required, VerifyCa, VerifyIdentity};
    for (mode, ca) in [
        (Preferred, None),
        (Required, None),
        (VerifyCa, Some(ours)),
        (VerifyIdentity, Some(ours)),
    ] {
        let store = MySqlStore::connect(&with(mode, ca)).await.unwrap();
        store.enqueue(&new_task("safe")).await.unwrap();
    }
    for (mode, ca, expected) in [
        (Disabled, None, "Access denied"),
        (VerifyCa, None, "invalid peer certificate"),
        (
            VerifyCa,
            Some(stranger.as_path()),
            "invalid peer certificate",
        ),
        (
            VerifyIdentity,
            Some(stranger.as_path()),
            "invalid peer certificate",
        ),
        (VerifyCa, Some(Path::new("/nowhere/ca.pem")), "No such file"),
    ] {
        let error = MySqlStore::connect(&with(mode, ca)).await.unwrap_err();
        let text = causes(&error);
        assert!(text.contains(expected), "{mode:?} {ca:?}: {text}");
    }
    // The certificate is for the address, not for a name of it.
    let named = |mode| MySqlSettings {
        host: "localhost".to_owned(),
        ..with(mode, Some(ours))
    };
    MySqlStore::connect(&named(VerifyCa)).await.unwrap();
    let error = MySqlStore::connect(&named(VerifyIdentity))
        .await
        .unwrap_err();
    assert!(
        causes(&error).contains("invalid peer certificate"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_where_it_is_required() {
    let Some(server) = server(MariaDb::start()) else {
        return;
    };
    let url = |mode: &str| {
        let port = server.settings("plain").port;
        let url = format!("mysql://root@127.0.0.1:{port}/plain?ssl-mode={mode}");
        MySqlSettings::from_url(&url).unwrap()
    };
    for mode in ["DISABLED", "PREFERRED"] {
        MySqlStore::connect(&url(mode)).await.unwrap();
    }
    for mode in ["REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"] {
        let error = MySqlStore::connect(&url(mode)).await.unwrap_err();
        let text = causes(&error);
        assert!(text.contains("server does not support TLS"), "{text}");
    }
}
