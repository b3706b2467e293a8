"""What the words of the page mean, shown on hovering and in a list at its end."""

from markupsafe import Markup, escape

WORDS = {
    "particle": "One of the K samples of a prompt that go through the pipeline side by side.",
    "reward": "The number that the reward model gives a sample; more is better.",
    "reward scale": "How much the reward counts: samples follow p(x | prompt) exp(reward scale * reward(x)).",
    "potential": "What a particle's score so far does to its weight.",
    "search": "How samples of high reward were looked for; what comes of it does not follow the target.",
    "proposal": "The law that children were drawn from in place of the sampler's; the weights correct for it.",
    "weight": "The share with which a sample counts; the weights of a prompt add up to 1.",
    "resampling": "Particles of small weight are replaced by copies of those of large weight.",
    "resampled": "Particles of small weight were replaced by copies of those of large weight.",
    "effective sample size": "How many equally weighted samples the weighted ones are worth: between 1 and K.",
    "effective samples": "How many equally weighted samples the weighted ones are worth: between 1 and K.",
    "ess threshold": "Particles are resampled when the effective sample size falls below this share of K.",
    "ancestor": "The particle of the first step that a sample descends from.",
    "ancestors": "Particles of the first step that samples descend from. One left: all are relatives.",
    "different ancestors": "Particles of the first step that samples descend from. One left: all are relatives.",
    "log Z": "Logarithm of the estimated mean of exp(reward scale * reward) over samples of the pipeline.",
    "log-weight std": "Standard deviation of the log weights of one step within a prompt; above 1 few samples survive.",
    "increment": "How the exact weight of a step of corrected guidance is computed.",
    "correction": "The share of the exact log weight that counts: 1 is exact, 0 is plain guidance.",
    "weight schedule": "The steps whose weights count.",
    "guidance scale": "How far the prediction with the prompt is extrapolated from the one without.",
    "sampler": "The stochastic sampler that the pipeline ran with.",
    "num particles": "K, samples a prompt.",
    "num steps": "Denoising steps.",
    "seed": "Of the noise; the same seed and settings give the same samples.",
    "denoiser calls": "Rows given to the denoiser; guidance takes two a sample and step.",
    "denoiser": "Rows given to the denoiser; guidance takes two a sample and step.",
    "decodes": "Latents decoded to pictures.",
    "reward calls": "Samples scored by the reward model.",
    "peak memory": "Largest memory of the process or the device while it ran.",
    "peak": "Largest memory of the process or the device while it ran.",
    "mean reward (by weight)": "Mean of the samples' rewards, each counted with its weight.",
    "95 % interval": "Bootstrap over prompts: another draw of prompts would give a mean in it 95 times of 100.",
    "settings": "Digits that tell runs with other settings apart.",
}


class Glossary:
    """Explains words as a page is written, and remembers which the page has."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def explain(self, words: str, key: str | None = None) -> Markup:
        """Words with their meaning on hovering, where there is one.

        Args:
            words: What is shown.
            key: Name of the meaning in `WORDS`; None for the words themselves.

        Returns:
            An `abbr` element, or the escaped words.
        """
        name = words if key is None else key
        if name not in WORDS:
            return escape(words)
        self._used.add(name)
        return Markup('<abbr title="{}">{}</abbr>').format(WORDS[name], words)

    def explain_fact(self, fact: str) -> Markup:
        """A fact of a prompt's header with the known word in it explained."""
        for word in ("log Z", "ancestors", "resampling"):
            if word in fact:
                before, after = fact.split(word, 1)
                return escape(before) + self.explain(word) + escape(after)
        return escape(fact)

    def entries(self) -> list[tuple[str, str]]:
        """The words explained so far, one for each meaning, and their meanings."""
        shown = {meaning: word for word, meaning in reversed(WORDS.items()) if word in self._used}
        return sorted(((word, meaning) for meaning, word in shown.items()), key=lambda entry: entry[0].lower())
