#!/usr/bin/env bash
# Run by LocalStack once S3 answers: the bucket, and a lifecycle rule that ends multipart uploads nobody finished.
# The workers remove their own; the rule is for those that even the ledger does not know.
set -euo pipefail

bucket="${S3_BUCKET:-exports}"

awslocal s3api head-bucket --bucket "$bucket" 2>/dev/null || awslocal s3api create-bucket --bucket "$bucket"
awslocal s3api put-bucket-lifecycle-configuration --bucket "$bucket" --lifecycle-configuration '{
  "Rules": [{
    "ID": "abort-stale-uploads",
    "Status": "Enabled",
    "Filter": {"Prefix": ""},
    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}
  }]
}'
echo "bucket $bucket is ready"
