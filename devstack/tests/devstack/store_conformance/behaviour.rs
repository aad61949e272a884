//! The table of the differences between the stores of the tests. Where S3's rule is in doubt, `true` is what S3 does.

/// Rules of S3 that not every store keeps.
#[expect(clippy::struct_excessive_bools, reason = "each is a difference of its own between stores")]
pub(crate) struct Behaviour {
    /// Completing an upload with the wrong `ETag` of a part is refused.
    pub checks_etags: bool,
    /// A part below 5 MiB that is not the last one is refused.
    pub checks_part_sizes: bool,
    /// Completing an upload a second time, or after its abort, fails with `NoSuchUpload`; else with another error.
    pub names_unknown_uploads: bool,
    /// `HEAD` has the checksum of a whole object that was uploaded in parts.
    pub keeps_whole_checksums: bool,
    /// Unfinished uploads can be listed.
    pub lists_uploads: bool,
}

/// `devstack/src/embedded_s3.rs`
pub(crate) const EMBEDDED: Behaviour = Behaviour {
    checks_etags: false,
    checks_part_sizes: true,
    names_unknown_uploads: true,
    keeps_whole_checksums: false,
    lists_uploads: true,
};

/// SeaweedFS, as `devstack with-servers` starts it.
pub(crate) const SEAWEEDFS: Behaviour = Behaviour {
    checks_etags: true,
    checks_part_sizes: true,
    names_unknown_uploads: true,
    keeps_whole_checksums: true,
    lists_uploads: true,
};
