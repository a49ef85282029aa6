package lab;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * The worker's side of the lab's own protocol, where upstream speaks gRPC (rpc port) and Netty (data
 * port). A request is a line, {@code LAB1 PATH}. On the rpc port it asks for a file's status, and the
 * answer is {@code OK file|folder LENGTH PERCENTAGE}; on the data port for its content, and
 * {@code OK LENGTH} comes before it. The other answers are {@code NOT_FOUND} and {@code ERROR TEXT}.
 */
final class Data {
  static final String REQUEST = "LAB1 ";

  private final PageStore mPages;

  Data(PageStore pages) {
    mPages = pages;
  }

  void status(Socket socket) throws IOException {
    Path file = asked(socket);
    if (file != null) {
      boolean folder = Files.isDirectory(file);
      say(socket, "OK " + (folder ? "folder 0 0"
          : "file " + Files.size(file) + " " + (mPages.holds(file) ? 100 : 0)));
    }
  }

  void read(Socket socket) throws IOException {
    Path file = asked(socket);
    if (file != null) {
      byte[] content = mPages.read(file);
      say(socket, "OK " + content.length);
      socket.getOutputStream().write(content);
      socket.getOutputStream().flush();
    }
  }

  /** The file that a request names, or null: then it is answered, or is none of this protocol. */
  private Path asked(Socket socket) throws IOException {
    String line = new BufferedReader(
        new InputStreamReader(socket.getInputStream(), StandardCharsets.UTF_8)).readLine();
    if (line == null || !line.startsWith(REQUEST)) {
      return null;
    }
    try {
      Path file = UnderStore.local(line.substring(REQUEST.length()));
      if (Files.isReadable(file)) {
        return file;
      }
      say(socket, Files.exists(file) ? "ERROR Permission denied: " + file : "NOT_FOUND");
    } catch (IllegalArgumentException e) {
      say(socket, "ERROR " + e.getMessage());
    }
    return null;
  }

  private static void say(Socket socket, String line) throws IOException {
    OutputStream out = socket.getOutputStream();
    out.write((line + "\n").getBytes(StandardCharsets.UTF_8));
    out.flush();
  }
}
