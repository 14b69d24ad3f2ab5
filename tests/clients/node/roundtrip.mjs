// Usage: node roundtrip.mjs BUCKET. The AWS SDK for JavaScript v3 as an application uses it,
// configured by its environment. Ends with status 0 when all it stored came back.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import {
  CopyObjectCommand, DeleteObjectsCommand, GetObjectCommand, HeadObjectCommand,
  ListObjectsV2Command, NoSuchKey, PutObjectCommand, S3Client,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";

const Bucket = process.argv[2];
const client = new S3Client({ forcePathStyle: true, maxAttempts: 1 });
const send = (Command, input) => client.send(new Command({ Bucket, ...input }));
const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

async function bytesOf(Key, extra = {}) {
  const answer = await send(GetObjectCommand, { Key, ...extra });
  return Buffer.from(await answer.Body.transformToByteArray());
}

for (const [Key, size] of [["small ü/+&", 100], ["empty", 0], ["mid", 3_000_000]]) {
  const Body = randomBytes(size);
  await send(PutObjectCommand, { Key, Body, Metadata: { sha256: sha256(Body) } });
  const head = await send(HeadObjectCommand, { Key });
  assert.equal(head.ContentLength, size);
  assert.equal(sha256(await bytesOf(Key)), head.Metadata.sha256);
}

// A stream of unknown length: lib-storage cuts it into parts, several at once.
const big = randomBytes(22 * 1024 * 1024 + 3);
const slices = function* () {
  for (let at = 0; at < big.length; at += 65_536) yield big.subarray(at, at + 65_536);
};
for (const ChecksumAlgorithm of [undefined, "SHA256", "CRC32C"]) {
  const Key = `big-${ChecksumAlgorithm}`;
  await new Upload({
    client, params: { Bucket, Key, Body: Readable.from(slices()), ChecksumAlgorithm },
    partSize: 5 * 1024 * 1024, queueSize: 3,
  }).done();
  assert.equal(sha256(await bytesOf(Key)), sha256(big));
}
const slice = await bytesOf("big-SHA256", { Range: "bytes=5242870-5242889" });
assert.deepEqual(slice, big.subarray(5_242_870, 5_242_890));

await send(CopyObjectCommand, { Key: "copy", CopySource: `${Bucket}/mid` });
assert.equal(sha256(await bytesOf("copy")), sha256(await bytesOf("mid")));

const listed = await send(ListObjectsV2Command, {});
assert.equal(listed.KeyCount, 7);
const Objects = listed.Contents.map(({ Key }) => ({ Key }));
const deleted = await send(DeleteObjectsCommand, { Delete: { Objects } });
assert.equal(deleted.Deleted.length, 7);
await assert.rejects(bytesOf("mid"), NoSuchKey);
