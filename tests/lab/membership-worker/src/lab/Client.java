package lab;

import alluxio.AlluxioURI;
import alluxio.client.block.BlockWorkerInfo;
import alluxio.client.file.dora.ConsistentHashPolicy;
import alluxio.client.file.dora.WorkerLocationPolicy;
import alluxio.conf.AlluxioConfiguration;
import alluxio.conf.PropertyKey;
import alluxio.exception.FileDoesNotExistException;
import alluxio.membership.MembershipManager;
import alluxio.membership.WorkerClusterView;
import alluxio.wire.WorkerInfo;
import alluxio.wire.WorkerNetAddress;

import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The client's side: which worker a path is read through, and when the under store is read instead,
 * as upstream's {@code DoraCacheClient} and {@code DoraCacheFileSystem} have it. The members come from
 * Alluxio's real membership manager, the choice is made by its real {@code ConsistentHashPolicy}; what
 * is spoken with the worker is {@link Data}'s.
 */
final class Client {
  private static final Logger LOG = LoggerFactory.getLogger(Client.class);
  private static final int CONNECT_MS = 5_000;
  private static final int ANSWER_MS = 30_000;

  final UnderStore mStore;
  private final MembershipManager mMembership;
  private final WorkerLocationPolicy mPolicy;
  private final boolean mLiveOnly;
  private boolean mFallback;

  Client(AlluxioConfiguration conf) {
    mStore = new UnderStore(conf);
    mMembership = MembershipManager.Factory.create(conf);
    mPolicy = new ConsistentHashPolicy(conf);
    mLiveOnly = conf.getBoolean(PropertyKey.USER_DYNAMIC_CONSISTENT_HASH_RING_ENABLED);
    mFallback = conf.getBoolean(PropertyKey.DORA_CLIENT_UFS_FALLBACK_ENABLED);
  }

  /** What is known of a file or folder. */
  static final class Status {
    final boolean mFolder;
    final long mLength;
    final int mInAlluxioPercentage;
    final boolean mFromUnderStore;

    Status(boolean folder, long length, int percentage, boolean fromUnderStore) {
      mFolder = folder;
      mLength = length;
      mInAlluxioPercentage = percentage;
      mFromUnderStore = fromUnderStore;
    }
  }

  void setFallback(boolean fallback) {
    mFallback = fallback;
  }

  Status status(String ufs) throws IOException, FileDoesNotExistException {
    try {
      return statusFrom(worker(ufs), ufs);
    } catch (RuntimeException e) {
      if (!mFallback) {
        throw e;
      }
      LOG.error("Dora client get status of '{}' error. Fall back to UFS.", ufs, e);
      Path file = UnderStore.local(ufs);
      if (!Files.exists(file)) {
        throw new FileDoesNotExistException(new AlluxioURI(ufs));
      }
      return new Status(Files.isDirectory(file), Files.size(file), 0, true);
    }
  }

  /** Where the status came from the under store, the content does, too, as it is upstream. */
  byte[] read(String ufs, Status status) throws IOException, FileDoesNotExistException {
    return status.mFromUnderStore ? Files.readAllBytes(UnderStore.local(ufs))
        : readFrom(worker(ufs), ufs);
  }

  WorkerNetAddress worker(String ufs) throws IOException {
    WorkerClusterView workers = mLiveOnly ? live() : mMembership.getAllMembers();
    if (workers.isEmpty()) {
      throw new IllegalStateException("No workers available in the cluster. Lost workers "
          + (mLiveOnly ? "excluded" : "included"));
    }
    List<BlockWorkerInfo> preferred;
    try {
      preferred = mPolicy.getPreferredWorkers(workers, ufs, 1);
    } catch (IOException e) {
      throw new RuntimeException(e);
    }
    if (preferred.isEmpty()) {
      throw new IllegalStateException(
          "Worker location policy returned no usable worker. Workers available are " + workers);
    }
    if (!preferred.get(0).isActive()) {
      throw new RuntimeException("The preferred worker is not active.");
    }
    return preferred.get(0).getNetAddress();
  }

  WorkerClusterView live() throws IOException {
    return mMembership.getLiveMembers();
  }

  /** What one worker knows of a path; null where it cannot be asked. */
  Status ask(WorkerInfo worker, String ufs) {
    try {
      return statusFrom(worker.getAddress(), ufs);
    } catch (IOException | FileDoesNotExistException | RuntimeException e) {
      return null;
    }
  }

  private static Status statusFrom(WorkerNetAddress worker, String ufs)
      throws IOException, FileDoesNotExistException {
    try (Socket socket = connect(worker, worker.getRpcPort())) {
      String[] answer = request(socket, ufs).split(" ");
      return new Status(answer[0].equals("folder"), Long.parseLong(answer[1]),
          Integer.parseInt(answer[2]), false);
    } catch (NoSuchFileException e) {
      throw new FileDoesNotExistException(new AlluxioURI(ufs));
    } catch (IOException e) {
      throw new RuntimeException(e);
    }
  }

  private static byte[] readFrom(WorkerNetAddress worker, String ufs)
      throws IOException, FileDoesNotExistException {
    try (Socket socket = connect(worker, worker.getDataPort())) {
      byte[] content = new byte[Integer.parseInt(request(socket, ufs))];
      InputStream in = socket.getInputStream();
      for (int done = 0; done < content.length;) {
        int read = in.read(content, done, content.length - done);
        if (read < 0) {
          throw new EOFException("the worker ended the connection");
        }
        done += read;
      }
      return content;
    } catch (NoSuchFileException e) {
      throw new FileDoesNotExistException(new AlluxioURI(ufs));
    }
  }

  private static Socket connect(WorkerNetAddress worker, int port) throws IOException {
    Socket socket = new Socket();
    try {
      socket.connect(new InetSocketAddress(worker.getHost(), port), CONNECT_MS);
    } catch (IOException e) {
      socket.close();
      throw new IOException("Failed to connect to remote server: "
          + worker.getHost() + ":" + port + ".", e);
    }
    socket.setSoTimeout(ANSWER_MS);
    return socket;
  }

  /** The rest of an OK line; what follows it stays unread. */
  private static String request(Socket socket, String ufs) throws IOException {
    socket.getOutputStream()
        .write((Data.REQUEST + ufs + "\n").getBytes(StandardCharsets.UTF_8));
    socket.getOutputStream().flush();
    ByteArrayOutputStream line = new ByteArrayOutputStream();
    InputStream in = socket.getInputStream();
    for (int b = in.read(); b != '\n'; b = in.read()) {
      if (b < 0) {
        throw new EOFException("the worker ended the connection");
      }
      line.write(b);
    }
    String answer = new String(line.toByteArray(), StandardCharsets.UTF_8);
    if (answer.equals("NOT_FOUND")) {
      throw new NoSuchFileException(ufs);
    }
    if (!answer.startsWith("OK ")) {
      throw new IOException(answer);
    }
    return answer.substring("OK ".length());
  }
}
