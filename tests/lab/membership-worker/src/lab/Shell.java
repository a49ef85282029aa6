package lab;

import alluxio.conf.Configuration;
import alluxio.conf.InstancedConfiguration;
import alluxio.conf.PropertyKey;
import alluxio.exception.ExceptionMessage;
import alluxio.exception.FileDoesNotExistException;
import alluxio.membership.MembershipManager;
import alluxio.util.ConfigurationUtils;
import alluxio.util.FormatUtils;
import alluxio.wire.WorkerIdentity;
import alluxio.wire.WorkerInfo;
import alluxio.wire.WorkerNetAddress;

import com.google.gson.Gson;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The commands of {@code bin/alluxio} that the lab's build has. Texts, streams and codes are those of
 * upstream's {@code FileSystemAdminShell}, {@code FileSystemShell} and {@code AbstractShell}: a failure
 * is said on stdout, and ends with 255 (-1).
 */
public final class Shell {
  private static final Logger LOG = LoggerFactory.getLogger(Shell.class);

  private Shell() {}

  public static void main(String[] args) {
    InstancedConfiguration conf = Configuration.modifiableGlobal();
    int code = 0;
    try {
      switch (args[0]) {
        case "fsadmin":
          requireMaster(conf, "Alluxio fsadmin shell");
          administer(conf, args);
          break;
        case "fs":
          requireMaster(conf, "Alluxio fs shell");
          files(conf, args);
          break;
        case "conf":
          code = configuration(conf, args);
          break;
        default:
          System.out.println(alluxio.RuntimeConstants.VERSION);
      }
    } catch (Exception e) {
      System.out.println(e.getMessage());
      LOG.error("Error running {}", String.join(" ", args), e);
      code = -1;
    }
    System.out.flush();
    System.exit(code); // the etcd client's threads would keep the process
  }

  private static void requireMaster(InstancedConfiguration conf, String shell) {
    if (!ConfigurationUtils.masterHostConfigured(conf)) {
      System.out.println(ConfigurationUtils.getMasterHostNotConfiguredMessage(shell));
      System.exit(1);
    }
  }

  /** {@code nodes status} (WorkerStatusCommand), {@code nodes remove -n ID} (RemoveWorkerCommand). */
  private static void administer(InstancedConfiguration conf, String[] args) throws IOException {
    MembershipManager members = MembershipManager.Factory.create(conf);
    if (args[2].equals("status")) {
      System.out.println(members.showAllMembers());
    } else {
      String id = args[4].trim();
      members.decommission(new WorkerInfo().setIdentity(WorkerIdentity.fromString(id)));
      System.out.printf("Successfully removed worker: %s%n", id);
    }
  }

  /** {@code [--source] KEY} (GetConf). */
  private static int configuration(InstancedConfiguration conf, String[] args) {
    String name = args[args.length - 1];
    if (!PropertyKey.isValid(name)) {
      System.out.println(name + " is not a valid configuration key.");
      return -1;
    }
    PropertyKey key = PropertyKey.fromString(name);
    if (args[1].equals("--source")) {
      System.out.println(conf.getSource(key));
    } else {
      System.out.println(conf.isSet(key) ? conf.get(key) : "");
    }
    return 0;
  }

  private static void files(InstancedConfiguration conf, String[] args)
      throws IOException, FileDoesNotExistException {
    Client client = new Client(conf);
    String path = args[args.length - 1];
    switch (args[1]) {
      case "cat":
        head(client, path, Integer.MAX_VALUE);
        break;
      case "head":
        head(client, path, FormatUtils.parseSpaceSize(option(args, "-c", "1024")));
        break;
      case "stat":
        stat(client, path, option(args, "-f", null));
        break;
      case "ls":
        list(client, path);
        break;
      case "location":
        locate(client, path);
        break;
      default:
        checkCached(client, path, args);
    }
  }

  private static void head(Client client, String path, long limit)
      throws IOException, FileDoesNotExistException {
    String ufs = client.mStore.convert(path);
    Client.Status status = client.status(ufs);
    if (status.mFolder) {
      throw new FileDoesNotExistException(ExceptionMessage.PATH_MUST_BE_FILE.getMessage(path));
    }
    byte[] content = client.read(ufs, status);
    System.out.write(content, 0, (int) Math.min(limit, content.length));
  }

  /** Of the formats of upstream's StatCommand the size and the name. */
  private static void stat(Client client, String path, String format)
      throws IOException, FileDoesNotExistException {
    String ufs = client.mStore.convert(path);
    Client.Status status = client.status(ufs);
    String size = status.mFolder ? "NA" : String.valueOf(status.mLength);
    if (format != null) {
      System.out.println(format.replace("%z", size)
          .replace("%N", UnderStore.local(ufs).getFileName().toString()));
    } else {
      System.out.println(path + (status.mFolder ? " is a directory path." : " is a file path."));
      System.out.printf("URIStatus{info=FileInfo{path=%s, ufsPath=%s, length=%s, folder=%s, "
          + "inAlluxioPercentage=%s}}%n", path, ufs, status.mLength, status.mFolder,
          status.mInAlluxioPercentage);
    }
  }

  /** Sizes and names alone, in columns of the lab's own. */
  private static void list(Client client, String path)
      throws IOException, FileDoesNotExistException {
    String ufs = client.mStore.convert(path);
    List<String> listed = new ArrayList<>();
    if (client.status(ufs).mFolder) {
      try (Stream<Path> children = Files.list(UnderStore.local(ufs))) {
        children.sorted().forEach(child -> listed.add(child.toString()));
      }
    } else {
      listed.add(ufs);
    }
    for (String each : listed) {
      Client.Status status = client.status(each);
      System.out.printf("%11s %s %s%n", status.mLength,
          status.mFolder ? "DIR" : status.mInAlluxioPercentage + "%",
          client.mStore.alluxioPath(each));
    }
  }

  private static void locate(Client client, String path) throws IOException {
    String ufs = client.mStore.convert(path);
    WorkerNetAddress preferred = client.worker(ufs);
    Set<String> holders = new HashSet<>();
    boolean onPreferred = false;
    for (WorkerInfo worker : client.live()) {
      Client.Status status = client.ask(worker, ufs);
      if (status != null && status.mInAlluxioPercentage > 0) {
        holders.add(worker.getAddress().getHost());
        onPreferred |= worker.getAddress().equals(preferred);
      }
    }
    System.out.println(
        new Gson().toJson(new FileLocation(ufs, preferred.getHost(), onPreferred, holders)));
  }

  /** As Gson writes upstream's class of this name. */
  private static final class FileLocation {
    private final String mFileName;
    private final String mPreferredWorker;
    private final boolean mDataOnPreferredWorker;
    private final Set<String> mWorkersThatHaveData;

    FileLocation(String file, String preferred, boolean onPreferred, Set<String> holders) {
      mFileName = file;
      mPreferredWorker = preferred;
      mDataOnPreferredWorker = onPreferred;
      mWorkersThatHaveData = holders;
    }
  }

  private static void checkCached(Client client, String path, String[] args)
      throws IOException, FileDoesNotExistException {
    client.setFallback(false);
    String ufs = client.mStore.convert(path);
    if (!client.status(ufs).mFolder) {
      throw new FileDoesNotExistException(ExceptionMessage.PATH_MUST_BE_DIRECTORY.getMessage(path));
    }
    int sample = Integer.parseInt(option(args, "--sample", "1"));
    int limit = Integer.parseInt(option(args, "--limit", "1000"));
    List<String> files;
    try (Stream<Path> children = Files.list(UnderStore.local(ufs))) {
      files = children.filter(Files::isRegularFile).map(Path::toString)
          .collect(Collectors.toList());
    }
    List<String> full = new ArrayList<>();
    List<String> none = new ArrayList<>();
    List<String> failed = new ArrayList<>();
    long bytes = 0;
    long cached = 0;
    List<String> asked = files.subList(0, Math.min(files.size() / sample, limit));
    for (String file : asked) {
      try {
        Client.Status status = client.status(file);
        bytes += status.mLength;
        cached += status.mLength * status.mInAlluxioPercentage / 100;
        (status.mLength == 0 || status.mInAlluxioPercentage == 100 ? full : none).add(file);
      } catch (FileDoesNotExistException e) {
        none.add(file);
      } catch (IOException | RuntimeException e) {
        failed.add(file);
      }
    }
    System.out.println("Total files checked: " + asked.size());
    System.out.println("Fully cached files count: " + full.size());
    System.out.println("Partially cached files count: 0"); // the lab's worker keeps whole files
    System.out.println("Not cached files count: " + none.size());
    System.out.println("Failed files count: " + failed.size());
    System.out.println("Total bytes checked: " + FormatUtils.getSizeFromBytes(bytes));
    System.out.println("Approximate bytes cached: " + FormatUtils.getSizeFromBytes(cached));
    samples("--------------Fully cached files samples (up to 100)------------------", full);
    samples("--------------Partially cached files samples (up to 100)-----------------",
        new ArrayList<>());
    samples("--------------Not cached files samples (up to 100)------------------", none);
    samples("--------------Failed files samples (up to 100)------------------", failed);
  }

  private static String option(String[] args, String name, String otherwise) {
    for (int i = 0; i < args.length - 1; i++) {
      if (args[i].equals(name)) {
        return args[i + 1];
      }
    }
    return otherwise;
  }

  private static void samples(String title, List<String> files) {
    System.out.println(title);
    files.stream().limit(100).forEach(System.out::println);
    System.out.println();
  }
}
