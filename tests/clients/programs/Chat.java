import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.stream.Stream;

/** java.net.http.HttpClient as it comes: every first request offers to upgrade to HTTP/2. */
class Chat {
    private static final String BODY = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}],\"max_tokens\":8%s}";

    public static void main(String[] arguments) throws Exception {
        URI uri = URI.create(arguments[0] + "/v1/chat/completions");
        HttpClient client = HttpClient.newHttpClient();
        for (int round = 0; round < 3; round++) {
            HttpResponse<String> answer = client.send(request(uri, ""), BodyHandlers.ofString());
            check(answer.statusCode() == 200 && answer.body().contains("\"finish_reason\""), answer.body());
        }
        HttpResponse<Stream<String>> stream = client.send(request(uri, ",\"stream\":true"), BodyHandlers.ofLines());
        String last = stream.body().filter(line -> !line.isEmpty()).reduce("", (before, line) -> line);
        check(last.equals("data: [DONE]"), last);
        byte[] chunks = BODY.formatted("").getBytes();
        HttpRequest unsized = HttpRequest.newBuilder(uri).header("Content-Type", "application/json")
            .POST(BodyPublishers.ofInputStream(() -> new java.io.ByteArrayInputStream(chunks))).build();
        check(client.send(unsized, BodyHandlers.ofString()).statusCode() == 200, "a body of unknown length");
        System.out.println("java " + Runtime.version());
    }

    private static HttpRequest request(URI uri, String more) {
        return HttpRequest.newBuilder(uri).header("Content-Type", "application/json")
            .POST(BodyPublishers.ofString(BODY.formatted(more))).build();
    }

    private static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
    }
}
