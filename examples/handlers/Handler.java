// A handler of orders: java Handler.java PORT
//
// Only Java's standard library (17 or later). An order is JSON with a number under "order". To try the ladder out, one with "fail": N fails
// N times, and one with "wait": S asks for S seconds of patience the first time. Takes batches in parts (format = "multipart"), too.

import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Map;
import java.util.OptionalInt;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.regex.Pattern;

public class Handler {
    record Outcome(String verdict, Map<String, String> headers, String text) {}

    static final Map<String, Integer> STATUSES = Map.of("done", 200, "retry", 503, "reject", 422);

    // A real handler stores this together with its orders, in one transaction.
    static final Set<String> DONE = ConcurrentHashMap.newKeySet();

    /** The key as bytes; null where there is none, or it was too long to be sent. */
    static byte[] keyOf(Headers headers) {
        String key = headers.getFirst("Kladder-Key");
        if (key == null) {
            return null;
        }
        boolean encoded = "base64".equals(headers.getFirst("Kladder-Key-Encoding"));
        return encoded ? Base64.getDecoder().decode(key) : key.getBytes(StandardCharsets.ISO_8859_1);
    }

    /** What becomes of an order; a null value is a tombstone. */
    static Outcome handle(byte[] key, byte[] value, int attempt) {
        if (value == null) {
            return new Outcome("done", Map.of(), "cancelled");
        }
        String json = new String(value, StandardCharsets.UTF_8);
        if (number(json, "order").isEmpty()) {
            return new Outcome("reject", Map.of("Kladder-Error-Class", "InvalidOrder"), "no order");
        }
        OptionalInt wait = number(json, "wait");
        if (attempt == 1 && wait.isPresent()) {
            var headers = Map.of("Kladder-Error-Class", "Busy", "Retry-After", String.valueOf(wait.getAsInt()));
            return new Outcome("retry", headers, "come back later");
        }
        if (attempt <= number(json, "fail").orElse(0)) {
            return new Outcome("retry", Map.of("Kladder-Error-Class", "OutOfStock"), "not in stock");
        }
        return new Outcome("done", Map.of(), "shipped");
    }

    /** A number of a flat JSON object: Java brings no parser along, and a real handler has one. */
    static OptionalInt number(String json, String name) {
        var found = Pattern.compile("\"" + name + "\"\\s*:\\s*(\\d+)").matcher(json);
        return found.find() ? OptionalInt.of(Integer.parseInt(found.group(1))) : OptionalInt.empty();
    }

    /** What becomes of one delivery, at most once done; its headers are those of a request, or of a part of a batch. */
    static Outcome deliver(Headers headers, byte[] body) {
        byte[] value = "null".equals(headers.getFirst("Kladder-Value")) ? null : body;
        int attempt = Integer.parseInt(headers.getFirst("Kladder-Attempt"));
        String idempotencyKey = headers.getFirst("Idempotency-Key");
        byte[] key = keyOf(headers);
        Outcome outcome =
                DONE.contains(idempotencyKey) ? new Outcome("done", Map.of(), "done before") : handle(key, value, attempt);
        if (outcome.verdict().equals("done")) {
            DONE.add(idempotencyKey);
        }
        String shown = key == null ? "none" : Base64.getEncoder().encodeToString(key);
        Object size = value == null ? "null" : value.length;
        System.out.printf("key=%s value=%s attempt=%d %s%n", shown, size, attempt, outcome.verdict());
        return outcome;
    }

    /** The answer to a batch: which of its parts have failed. Each part says how long it is. */
    static String deliverParts(byte[] body, String boundary) {
        var failures = new ArrayList<String>();
        int at = boundary.length() + 4;
        while (at < body.length && !text(body, at - 2, 2).equals("--")) {
            var headers = new Headers();
            int end = at;
            for (String line = line(body, end); !line.isEmpty(); line = line(body, end)) {
                headers.add(line.substring(0, line.indexOf(':')), line.substring(line.indexOf(':') + 2));
                end += line.length() + 2;
            }
            int start = end + 2;
            int length = Integer.parseInt(headers.getFirst("Content-Length"));
            Outcome outcome = deliver(headers, Arrays.copyOfRange(body, start, start + length));
            if (!outcome.verdict().equals("done")) {
                // The key stands in quotes, as a string of JSON does.
                String after = outcome.headers().get("Retry-After");
                failures.add(String.format(
                        "{\"id\":%s,\"verdict\":\"%s\",\"error_class\":\"%s\",\"error_message\":\"%s\"%s}",
                        headers.getFirst("Idempotency-Key"), outcome.verdict(), outcome.headers().get("Kladder-Error-Class"),
                        outcome.text(), after == null ? "" : ",\"retry_after\":\"" + after + "\""));
            }
            at = start + length + boundary.length() + 6;
        }
        return "{\"failures\":[" + String.join(",", failures) + "]}";
    }

    static String line(byte[] body, int from) {
        int end = from;
        while (body[end] != '\r') {
            end++;
        }
        return text(body, from, end - from);
    }

    static String text(byte[] body, int from, int length) {
        return new String(body, from, length, StandardCharsets.ISO_8859_1);
    }

    static void serve(HttpExchange exchange) throws IOException {
        try (exchange) {
            Headers headers = exchange.getRequestHeaders();
            byte[] body = exchange.getRequestBody().readAllBytes();
            String contentType = headers.getFirst("Content-Type");
            if (contentType.startsWith("multipart/mixed; boundary=")) {
                String boundary = contentType.substring(contentType.indexOf('=') + 1);
                byte[] said = deliverParts(body, boundary).getBytes(StandardCharsets.UTF_8);
                exchange.getResponseHeaders().set("Content-Type", "application/json");
                exchange.sendResponseHeaders(200, said.length);
                exchange.getResponseBody().write(said);
                return;
            }
            Outcome outcome = deliver(headers, body);
            Headers answer = exchange.getResponseHeaders();
            answer.set("Kladder-Verdict", outcome.verdict());
            outcome.headers().forEach(answer::set);
            byte[] text = outcome.text().getBytes(StandardCharsets.UTF_8);
            exchange.sendResponseHeaders(STATUSES.get(outcome.verdict()), text.length);
            exchange.getResponseBody().write(text);
        }
    }

    public static void main(String[] arguments) throws IOException {
        if (arguments.length != 1) {
            System.err.println("usage: java Handler.java PORT");
            System.exit(2);
        }
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[0])), 128);
        server.createContext("/", Handler::serve);
        server.setExecutor(Executors.newFixedThreadPool(64));
        server.start();
        // Requests in flight are answered first, for at most this many seconds.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(5)));
    }
}
