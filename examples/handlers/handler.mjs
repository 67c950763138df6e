// A handler of orders: node handler.mjs PORT
//
// Only Node's standard library. An order is JSON with a number under "order". To try the ladder out, one with "fail": N fails N times, and
// one with "wait": S asks for S seconds of patience the first time. Takes batches of CloudEvents, too.

import http from "node:http";

// A real handler stores this together with its orders, in one transaction.
const done = new Set();
const statuses = { done: 200, retry: 503, reject: 422 };

// The key as bytes; null if there is none or it was too long for a header.
function keyOf(headers) {
  const key = headers["kladder-key"];
  if (key === undefined) return null;
  return Buffer.from(key, headers["kladder-key-encoding"] === "base64" ? "base64" : "latin1");
}

// The verdict on an order, with headers and a text that say more.
function handle(key, value, attempt) {
  if (value === null) return { verdict: "done", text: "cancelled" };
  let order;
  try {
    order = JSON.parse(value);
  } catch {
    order = null;
  }
  if (order?.order === undefined) return { verdict: "reject", more: { "Kladder-Error-Class": "InvalidOrder" }, text: "no order" };
  if (attempt === 1 && "wait" in order) {
    return { verdict: "retry", more: { "Kladder-Error-Class": "Busy", "Retry-After": order.wait }, text: "come back later" };
  }
  if (attempt <= (order.fail ?? 0)) return { verdict: "retry", more: { "Kladder-Error-Class": "OutOfStock" }, text: "not in stock" };
  return { verdict: "done", text: "shipped" };
}

// The verdict on one delivery, at most once done.
function deliver(idempotencyKey, key, value, attempt) {
  const outcome = done.has(idempotencyKey) ? { verdict: "done", text: "done before" } : handle(key, value, attempt);
  if (outcome.verdict === "done") done.add(idempotencyKey);
  console.log(`key=${key?.toString("base64") ?? "none"} value=${value?.length ?? "null"} attempt=${attempt} ${outcome.verdict}`);
  return outcome;
}

// The same for an event of a batch: what failed as the answer names it, or nothing.
function deliverEvent(event) {
  let key = "partitionkey" in event ? Buffer.from(event.partitionkey) : null;
  if ("kladderkeybase64" in event) key = Buffer.from(event.kladderkeybase64, "base64");
  let value = null;
  if ("data" in event) value = Buffer.from(JSON.stringify(event.data));
  else if ("data_base64" in event) value = Buffer.from(event.data_base64, "base64");
  const { verdict, more, text } = deliver(event.id, key, value, event.kladderattempt);
  if (verdict === "done") return [];
  const after = more["Retry-After"];
  const failure = { id: event.id, verdict, error_class: more["Kladder-Error-Class"], error_message: text };
  return [after === undefined ? failure : { ...failure, retry_after: String(after) }];
}

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  if (request.headers["content-type"].startsWith("application/cloudevents-batch+json")) {
    response.writeHead(200, { "Content-Type": "application/json" });
    response.end(JSON.stringify({ failures: JSON.parse(body).flatMap(deliverEvent) }));
    return;
  }
  const value = request.headers["kladder-value"] === "null" ? null : body;
  const attempt = Number(request.headers["kladder-attempt"]);
  const outcome = deliver(request.headers["idempotency-key"], keyOf(request.headers), value, attempt);
  response.writeHead(statuses[outcome.verdict], { "Kladder-Verdict": outcome.verdict, ...outcome.more });
  response.end(outcome.text);
});

const port = Number(process.argv[2]);
if (!port) {
  console.error("usage: node handler.mjs PORT");
  process.exit(2);
}
server.listen(port, "127.0.0.1");
// Requests in flight are answered first.
process.on("SIGTERM", () => {
  server.close();
  server.closeIdleConnections();
});
