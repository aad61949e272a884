//! PostgreSQL with TLS: verified by an authority of one's own, by name, and with a client certificate where the server asks
//! for one.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use polyglot_devstack::postgres::{Postgres, PostgresSettings};
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_devstack::{free_port, seed};
use polyglot_test_kit::System;
use polyglot_test_servers::needs_servers;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

use super::authority::{Authority, Signed};
use super::front::Front;
use super::{outer_address, run, start_and_export};

const PASSWORD: &str = "superuser";

/// A private server that takes TLS, and the role `certified` only with a certificate of that name.
pub(super) struct SecuredPostgres {
    postgres: Postgres,
    pub port: u16,
    _files: ScratchDir,
}

impl SecuredPostgres {
    pub(super) async fn start(authority: &Authority, name: &str) -> Self {
        let files = ScratchDir::new("secured-postgres").unwrap();
        let dir = files.path().canonicalize().unwrap();
        let port = free_port().unwrap();
        let settings = PostgresSettings {
            port,
            durable: false,
            password: Some(PASSWORD.to_owned()),
            max_connections: 100,
            options: &[],
        };
        let postgres = Postgres::start(&dir, &dir.join("postgres.log"), settings).await;
        let this =
            Self { postgres: postgres.unwrap_or_else(|error| panic!("{}", error.with_causes())), port, _files: files };
        let cluster = dir.join("postgres").join("cluster");
        let Signed { certificate, key, .. } = &authority.server(name);
        write_owned(&cluster.join("server.crt"), certificate);
        write_owned(&cluster.join("server.key"), key);
        write_owned(&cluster.join("root.crt"), &authority.pem());
        let rules = "hostssl all certified all scram-sha-256 clientcert=verify-full\nhost all certified all reject\n\
                     host all all all scram-sha-256\n";
        write_owned(&cluster.join("pg_hba.conf"), rules);
        for statement in [
            "CREATE ROLE certified LOGIN SUPERUSER PASSWORD 'certified'",
            "ALTER SYSTEM SET ssl_ca_file TO 'root.crt'",
            "ALTER SYSTEM SET ssl TO on",
            "SELECT pg_reload_conf()",
        ] {
            this.sql(statement.to_owned()).await;
        }
        this
    }

    /// The superuser's URL.
    pub(super) fn url(&self, database: &str) -> String {
        self.postgres.url(database)
    }

    pub(super) async fn sql(&self, statement: String) {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// Writes a file that belongs to the owner of the folder alone.
fn write_owned(path: &Path, text: &str) {
    let owner = std::fs::metadata(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test]
async fn postgresql_is_verified_by_default_by_name_and_by_authority() {
    needs_servers!();
    let (authority, other, address) = (Authority::new(), Authority::new(), outer_address());
    let postgres = SecuredPostgres::start(&authority, &address).await;
    postgres.sql("CREATE DATABASE verified".to_owned()).await;
    seed::fill(&postgres.url("verified"), 1000).await.unwrap();
    let front = Front::start(&format!("127.0.0.1:{}", postgres.port), None).await;
    let name = format!("test_{}", uuid::Uuid::new_v4().simple());
    let mut system = System::prepare(&name, &postgres.url("verified"), Vec::new()).await;
    let ca = authority.write(&system.file("ca.pem"));
    let other_ca = other.write(&system.file("other-ca.pem"));
    let (certificate, key) = authority.client("certified").write(system.files.path(), "certified");
    let (wrong, wrong_key) = authority.client("somebody").write(system.files.path(), "somebody");
    let (ca, other_ca) = (ca.display(), other_ca.display());
    let at = |host: &str, parameters: &str| {
        format!("postgres://certified:certified@{host}:{}/verified?{parameters}", front.port)
    };
    let certified = format!("sslcert={}&sslkey={}", certificate.display(), key.display());

    // No mode in the address, which is verify-full then.
    let good = at(&address, &format!("sslrootcert={ca}&{certified}"));
    system.set("DATABASE_URL", &good);
    start_and_export(&mut system).await;
    let sessions = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'certified'";
    assert!(system.count(sessions).await > 0);
    system.wait_until_none(
        "no session is plain",
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'certified' AND NOT ssl",
    )
    .await;

    for (what, url) in [
        ("the system's authorities alone", at(&address, &certified)),
        ("another authority", at(&address, &format!("sslrootcert={other_ca}&{certified}"))),
        ("another name", at("localhost", &format!("sslmode=verify-full&sslrootcert={ca}&{certified}"))),
        ("no client certificate", at(&address, &format!("sslrootcert={ca}"))),
        (
            "a client certificate of another name",
            at(&address, &format!("sslrootcert={ca}&sslcert={}&sslkey={}", wrong.display(), wrong_key.display())),
        ),
        ("no file of authorities", at(&address, &format!("sslrootcert=/nowhere/ca.pem&{certified}"))),
    ] {
        system.set("DATABASE_URL", &url);
        let (code, output) = run(&system, "polyglot-api", &["check"]).await;
        assert_eq!(code, Some(1), "{what}: {output}");
        for name in ["DATABASE_URL: ", "SOURCE_DATABASE_URL: "] {
            assert!(output.contains(name), "{what}: {output}");
        }
        assert!(!output.contains("certified:certified") && !output.contains("PRIVATE"), "{output}");
    }
    system.set("DATABASE_URL", &good);
    let (code, output) = run(&system, "polyglot-api", &["check"]).await;
    assert_eq!(code, Some(0), "{output}");

    // A server without TLS is no reason to go on without.
    postgres.sql("ALTER SYSTEM SET ssl TO off".to_owned()).await;
    postgres.sql("SELECT pg_reload_conf()".to_owned()).await;
    let (code, output) = run(&system, "polyglot-api", &["check"]).await;
    assert!(code == Some(1) && output.contains("does not support TLS"), "{output}");
}
