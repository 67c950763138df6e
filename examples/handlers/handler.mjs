// A handler of orders: node handler.mjs PORT
//
// No package but Node's own. An order is JSON with a number under "order". To try the ladder out, one with "fail": N fails N times, and
// one with "wait": S asks for S seconds of patience the first time.

import http from "node:http";

// A real handler keeps this where it keeps its orders, and writes both in one transaction.
const done = new Set();
const statuses = { done: 200, retry: 503, reject: 422 };

// The key as bytes; null where there is none, or it was too long to be sent.
function keyOf(headers) {
  const key = headers["kladder-key"];
  if (key === undefined) return null;
  return Buffer.from(key, headers["kladder-key-encoding"] === "base64" ? "base64" : "latin1");
}

// What becomes of an order: a verdict, and the headers and the text that say more.
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

const server = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const value = request.headers["kladder-value"] === "null" ? null : Buffer.concat(chunks);
  const attempt = Number(request.headers["kladder-attempt"]);
  const idempotencyKey = request.headers["idempotency-key"];
  const key = keyOf(request.headers);
  const outcome = done.has(idempotencyKey) ? { verdict: "done", text: "done before" } : handle(key, value, attempt);
  if (outcome.verdict === "done") done.add(idempotencyKey);
  console.log(`key=${key?.toString("base64") ?? "none"} value=${value?.length ?? "null"} attempt=${attempt} ${outcome.verdict}`);
  response.writeHead(statuses[outcome.verdict], { "Kladder-Verdict": outcome.verdict, ...outcome.more });
  response.end(outcome.text);
});

const port = Number(process.argv[2]);
if (!port) {
  console.error("usage: node handler.mjs PORT");
  process.exit(2);
}
server.listen(port, "127.0.0.1");
// What is being handled is answered first.
process.on("SIGTERM", () => {
  server.close();
  server.closeIdleConnections();
});
