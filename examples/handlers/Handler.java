// A handler of orders: java Handler.java PORT
//
// No library but Java's own (17 or later). An order is JSON with a number under "order". To try the ladder out, one with "fail": N fails
// N times, and one with "wait": S asks for S seconds of patience the first time.

import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
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

    // A real handler keeps this where it keeps its orders, and writes both in one transaction.
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

    static void serve(HttpExchange exchange) throws IOException {
        try (exchange) {
            Headers headers = exchange.getRequestHeaders();
            byte[] body = exchange.getRequestBody().readAllBytes();
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
        // What is being handled is answered first, for at most so many seconds.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(5)));
    }
}
