//! The table of the differences between the stores of the tests. Where S3's rule is in doubt, `true` is what S3 does.

/// Rules of S3 that not every store keeps.
#[expect(clippy::struct_excessive_bools, reason = "each is a difference of its own between stores")]
pub(crate) struct Behaviour {
    /// An object that is refused because its bytes differ from the CRC-32 sent with them is not there afterwards.
    pub discards_refused_objects: bool,
    /// A part whose bytes differ from the CRC-32 that was sent with them is refused.
    pub checks_part_checksums: bool,
    /// Completing an upload with the wrong `ETag` of a part is refused.
    pub checks_etags: bool,
    /// A part below 5 MiB that is not the last one is refused.
    pub checks_part_sizes: bool,
    /// Completing an upload with a part that was never sent fails with `InvalidPart`; else with another error.
    pub names_missing_parts: bool,
    /// A call for an upload that does not exist (completed, aborted or never begun) fails with `NoSuchUpload`; else with
    /// another error.
    pub names_unknown_uploads: bool,
    /// `HEAD` has the checksum of a whole object that was uploaded in parts.
    pub keeps_whole_checksums: bool,
    /// The answer to `HEAD` has the headers that its presigned URL names, as the answer to `GET` has.
    pub overrides_headers_of_head: bool,
    /// Unfinished uploads can be listed.
    pub lists_uploads: bool,
    /// Ranges of GET: a suffix may be longer than the object, what cannot be read is ignored, `If-Range` is compared.
    pub does_ranges_as_s3_does: bool,
}

/// `devstack/src/embedded_s3.rs`
pub(crate) const EMBEDDED: Behaviour = Behaviour {
    discards_refused_objects: false,
    checks_part_checksums: false,
    checks_etags: false,
    checks_part_sizes: true,
    names_missing_parts: false,
    names_unknown_uploads: false,
    keeps_whole_checksums: false,
    overrides_headers_of_head: false,
    lists_uploads: true,
    does_ranges_as_s3_does: true,
};

/// SeaweedFS, as `devstack with-servers` starts it.
pub(crate) const SEAWEEDFS: Behaviour = Behaviour {
    discards_refused_objects: true,
    checks_part_checksums: true,
    checks_etags: false,
    checks_part_sizes: true,
    names_missing_parts: true,
    names_unknown_uploads: true,
    keeps_whole_checksums: true,
    overrides_headers_of_head: true,
    lists_uploads: true,
    does_ranges_as_s3_does: false,
};
