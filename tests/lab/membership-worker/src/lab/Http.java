package lab;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;

/** As much of HTTP/1.1 as a check of health asks for: GET and HEAD, one exchange a connection. */
final class Http {
  private static final int HEAD_LIMIT = 16 * 1024;

  private Http() {}

  /** Answers a request; null ends the connection without a word, as upstream's HTTP server does. */
  interface Handler {
    Answer answer(String method, String target) throws IOException;
  }

  static final class Answer {
    private final int mStatus;
    private final String mType;
    private final byte[] mBody;
    private String mLocation;

    Answer(int status, String type, String body) {
      mStatus = status;
      mType = type;
      mBody = body.getBytes(StandardCharsets.UTF_8);
    }

    /** What Jetty answers for a folder's name without the slash. */
    static Answer found(String path) {
      Answer answer = new Answer(302, "text/plain", "");
      answer.mLocation = path;
      return answer;
    }
  }

  static Server.Exchange serving(Handler handler) {
    return socket -> {
      String[] request = head(socket.getInputStream()).split("\r?\n", 2)[0].split(" ");
      if (request.length != 3) {
        return;
      }
      Answer answer = handler.answer(request[0], request[1]);
      if (answer == null) {
        return;
      }
      OutputStream out = socket.getOutputStream();
      String reason = answer.mStatus == 200 ? "OK" : answer.mStatus == 302 ? "Found" : "Not Found";
      out.write(("HTTP/1.1 " + answer.mStatus + " " + reason + "\r\nContent-Type: " + answer.mType
          + (answer.mLocation == null ? "" : "\r\nLocation: " + answer.mLocation)
          + "\r\nContent-Length: " + answer.mBody.length + "\r\nConnection: close\r\n\r\n")
          .getBytes(StandardCharsets.US_ASCII));
      if (!request[0].equals("HEAD")) {
        out.write(answer.mBody);
      }
      out.flush();
    };
  }

  private static String head(InputStream in) throws IOException {
    ByteArrayOutputStream head = new ByteArrayOutputStream();
    int last = 0;
    for (int b = in.read(); b >= 0 && head.size() < HEAD_LIMIT; b = in.read()) {
      head.write(b);
      if (b == '\n' && last == '\n') {
        break;
      }
      last = b == '\r' ? last : b;
    }
    return new String(head.toByteArray(), StandardCharsets.ISO_8859_1);
  }
}
